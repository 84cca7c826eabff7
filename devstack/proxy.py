"""A TCP proxy that can be slow, cut or a black hole, for fault tests and for the bench's round trips.

Invariant: it changes when bytes arrive and whether they do, never which bytes. It runs in a process of its own
(`devstack.proxy_server`), so that it shares no GIL with what is measured, and never outlives its owner: it ends when
its standard input does.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 10.0


class Counters(NamedTuple):
    """What has passed since the start; subtract two readings for what passed between them."""

    round_trips: int
    """Turns on the wire: a client spoke first, or again after its server had spoken."""
    connections: int
    """Those that were accepted."""
    bytes: int
    """Of both directions."""

    def since(self, earlier: "Counters") -> "Counters":
        """What passed between an earlier reading and this one."""
        return Counters(*(now - then for now, then in zip(self, earlier, strict=True)))


class Proxy:
    """Forwards connections on a loopback port to a target; not to be used by two threads at once.

    `latency_seconds` is added to each round trip, half of it each way, and may be set at any time; a new
    connection costs one round trip too. All methods return when done.
    """

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
                "devstack.proxy_server",
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
        answer = self._order("counters")
        return Counters(answer["round_trips"], answer["connections"], answer["bytes"])

    @property
    def open_links(self) -> int:
        """Connections that are open now."""
        return int(self._order("counters")["open_links"])

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
