"""The HTTP side as a process, forked from one that has imported the app: a test run starts it seventy times.

Invariant: a server knows its own environment only, and shares nothing with other servers, since importing the app reads
no setting and connects to nothing (app/relation.py).
"""

import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import httpx
import uvicorn

from devstack.ports import choose
from tests.support.services import ROOT
from tests.support.worker import wait_until

HOST: Final = "127.0.0.1"
_forks: Final = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__, "app.relation", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on"])


@contextmanager
def serving(environment: Mapping[str, str]) -> Iterator[httpx.Client]:
    """The app in this environment; a client of it that keeps cookies and follows nothing."""
    port = choose(taken=set())
    with tempfile.NamedTemporaryFile(prefix="server-", suffix=".log") as log:
        process = _forks.Process(target=_serve, args=(dict(environment), port, log.name))
        process.start()
        try:
            wait_until(lambda: not process.is_alive() or _listens(port), "the server to listen")
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60) as client:
                yield client
        except BaseException as error:
            error.add_note(f"the server's log:\n{Path(log.name).read_text(errors='replace')[-6_000:]}")
            raise
        finally:
            process.kill()
            process.join()


def _serve(environment: Mapping[str, str], port: int, log: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from app.relation import app

    uvicorn.run(app, host=HOST, port=port)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex((HOST, port)) == 0
