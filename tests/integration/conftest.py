"""What several files of the commands' tests use."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from app.jobs import __main__ as jobs_cli


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


type Command = Callable[..., Ran]


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
