"""The demo's last step, when it is asked for: the pages over the local services, until Ctrl-C.

Invariant: the server ends with this process, and is told of in words when it can't begin.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from devstack.ports import choose, is_free
from devstack.waiting import wait_until

ROOT: Final = Path(__file__).resolve().parent.parent
USUAL_PORT: Final = 8000
START_LIMIT_SECONDS: Final = 60.0
STOP_LIMIT_SECONDS: Final = 15.0


class ServeError(Exception):
    """Why the pages are not served, for a person."""


def serve(environment: Mapping[str, str], log: Path, on_ready: Callable[[str], None]) -> None:
    """Serve until KeyboardInterrupt; `on_ready` is told the address once it answers. Raises `ServeError`."""
    port = USUAL_PORT if is_free(USUAL_PORT) else choose(taken=())
    address = f"http://127.0.0.1:{port}"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app.relation:app", "--port", str(port)],
            cwd=ROOT,
            env=dict(environment),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server
        )
    try:
        if not _await_answer(server, address):
            raise ServeError(f"the page's server has not started; its log: {log}")
        on_ready(address)
        server.wait()
        raise ServeError(f"the page's server ended with code {server.returncode}; its log: {log}")
    except KeyboardInterrupt:
        return
    finally:
        _end(server)


def _await_answer(server: "subprocess.Popen[bytes]", address: str) -> bool:
    def answers() -> bool:
        try:
            return httpx.get(f"{address}/ui/style.css", timeout=5).is_success
        except httpx.TransportError:
            return server.poll() is not None

    return wait_until(answers, START_LIMIT_SECONDS) and server.poll() is None


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
