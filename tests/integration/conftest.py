"""What several files of the commands' and the routes' tests use."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import httpx
import pytest

from app.jobs import __main__ as jobs_cli
from devstack.ports import choose
from tests.support.commands import Command, Ran
from tests.support.servers import serving
from tests.support.worker import Worker

SERVE = "import sys, uvicorn; from app.relation import app; uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]))"


@pytest.fixture
def command(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``python -m app.jobs`` in this process, in a worker's environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def execute(*arguments: str) -> Ran:
        capsys.readouterr()
        code = jobs_cli.run(jobs_cli.parse(arguments))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return execute


@pytest.fixture
def servers() -> Iterator[Callable[..., tuple[Worker, httpx.Client]]]:
    """Starts the app with an environment, ``servers(environment, host="127.0.0.1")``; its process and a client."""
    running: list[Worker] = []

    def start(environment: Mapping[str, str], host: str = "127.0.0.1") -> tuple[Worker, httpx.Client]:
        port = choose(taken=set())
        server = Worker(environment, "-c", SERVE, host, str(port))
        running.append(server)
        server.wait_for("Uvicorn running on")
        return server, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    yield start
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture
def serve() -> Iterator[Callable[[Mapping[str, str]], httpx.Client]]:
    """Starts the app with an environment; a client for it."""
    with ExitStack() as running:
        yield lambda environment: running.enter_context(serving(environment))


@pytest.fixture
def client(serve: Callable[[Mapping[str, str]], httpx.Client], environment: dict[str, str]) -> httpx.Client:
    """A client of the app in a worker's environment."""
    return serve(environment)
