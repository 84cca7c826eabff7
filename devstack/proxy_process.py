"""The handle on a proxy that runs in a process of its own, so that it shares no GIL with what is measured.

Invariant: the process never outlives its handle's owner: it ends when its standard input does.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

from devstack.proxy import Counters

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 10.0


class ProxyProcess:
    """As `devstack.proxy.Proxy`, method for method; not to be used by two threads at once."""

    def __init__(self, target_host: str, target_port: int, latency_seconds: float = 0.0, *, port: int = 0) -> None:
        """`port` to listen on; 0 for any free one."""
        self.port = port
        self._target = f"{target_host}:{target_port}"
        self._latency_seconds = latency_seconds
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def before(cls, url: str, latency_seconds: float = 0.0) -> Self:
        """A proxy to the server that `url` names; `moved` makes the URL that goes through it."""
        parts = urlsplit(url)
        if parts.hostname is None or parts.port is None:
            raise ValueError("the URL names no host and port")
        return cls(parts.hostname, parts.port, latency_seconds)

    def start(self) -> Self:
        """Start the process and wait until it listens; `port` is set from here on."""
        arguments = ["--listen", str(self.port), "--target", self._target]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "devstack.proxy",
                *arguments,
                "--latency-ms",
                str(self._latency_seconds * 1000),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._answer()["port"]
        return self

    def stop(self) -> None:
        """End the process, and with it every connection. Harmless when already stopped."""
        if self._process is not None:
            self._process.communicate(timeout=STOP_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process, for its CPU time."""
        return self._running().pid

    @property
    def latency_seconds(self) -> float:
        """Added to each round trip, half of it each way."""
        return self._latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._order(f"latency-ms {seconds * 1000}")
        self._latency_seconds = seconds

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._order("cut")

    def black_hole(self) -> None:
        """Accept connections and bytes, forward nothing, say nothing. What is held arrives after `heal`."""
        self._order("black-hole")

    def heal(self) -> None:
        """End `cut` or `black_hole`; the latency stays."""
        self._order("heal")

    def counters(self) -> Counters:
        """What has passed since the start."""
        return Counters(**self._order("counters"))

    @property
    def round_trips(self) -> int:
        """See `Counters`."""
        return self.counters().round_trips

    @property
    def connections(self) -> int:
        """Connections accepted since the start."""
        return self.counters().connections

    @property
    def bytes(self) -> int:
        """Bytes of both directions since the start."""
        return self.counters().bytes

    def _order(self, line: str) -> dict[str, Any]:
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def _answer(self) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxy to {self._target} has ended, exit code {process.wait()}")
        return cast(dict[str, Any], json.loads(line))

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise RuntimeError("the proxy is not running")
        return self._process


def moved(url: str, port: int) -> str:
    """The same URL at another port."""
    parts = urlsplit(url)
    before, _, _ = parts.netloc.rpartition(":")
    return parts._replace(netloc=f"{before}:{port}").geturl()
