"""A TCP proxy that can be slow, cut or a black hole, for fault tests and for the bench's round trips.

Invariant: it changes when bytes arrive and whether they do, never which bytes. While connections are cut its
port stays its own, so that healing always works. `python -m devstack.proxy` runs it in a process of its own,
steered by lines on standard input, and it ends when that input does.
"""

import argparse
import asyncio
import json
import selectors
import socket
import sys
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, Self

from devstack.relay import Conditions, Link

HOST = "127.0.0.1"
CALL_SECONDS = 10.0
BACKLOG = 512


class Counters(NamedTuple):
    """What has passed since the start; subtract two readings for what passed between them."""

    round_trips: int
    """Turns on the wire: a client spoke first, or again after its server had spoken."""
    connections: int
    bytes: int

    def since(self, earlier: "Counters") -> "Counters":
        """What passed between an earlier reading and this one."""
        return Counters(*(now - then for now, then in zip(self, earlier, strict=True)))


class Proxy:
    """Forwards connections on a loopback port to a target, on a thread of its own.

    `latency_seconds` is added to each round trip, half of it each way, and may be set at any time; a new
    connection costs one round trip too. All methods may be called from any thread and return when done.
    """

    def __init__(self, target_host: str, target_port: int, latency_seconds: float = 0.0, *, port: int = 0) -> None:
        """`port` to listen on; 0 for any free one."""
        self.port = port
        self._target = (target_host, target_port)
        self._conditions = Conditions(latency_seconds)
        # epoll counts whole milliseconds, too coarse for half of a 1 ms round trip; select does not.
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._placeholder: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def start(self) -> Self:
        """Listen; `port` is set from here on."""
        self._thread.start()
        self._run(self._start())
        return self

    def stop(self) -> None:
        """Reset what is connected, free the port, end the thread. Harmless when already stopped."""
        if self._thread.is_alive():
            self._run(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def latency_seconds(self) -> float:
        """Added to each round trip, from the next byte on."""
        return self._conditions.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self._conditions.latency_seconds = seconds

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._run(self._cut())

    def black_hole(self) -> None:
        """Accept connections and bytes, forward nothing, say nothing. What is held arrives after `heal`."""
        self._run(self._black_hole())

    def heal(self) -> None:
        """End `cut` or `black_hole`; the latency stays."""
        self._run(self._heal())

    def counters(self) -> Counters:
        """What has passed since the start."""
        now = self._conditions
        return Counters(now.round_trips, now.connections, now.bytes)

    @property
    def round_trips(self) -> int:
        """See `Counters`."""
        return self._conditions.round_trips

    @property
    def connections(self) -> int:
        """Connections accepted since the start."""
        return self._conditions.connections

    @property
    def bytes(self) -> int:
        """Bytes of both directions since the start."""
        return self._conditions.bytes

    @property
    def open_links(self) -> int:
        """Connections that are open now."""
        return len(self._conditions.links)

    def _run(self, act: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result(CALL_SECONDS)

    async def _start(self) -> None:
        # Bound but not listening: it refuses, and nobody else is given the port while we do not listen.
        self._placeholder = _bound_socket(self.port)
        self.port = self._placeholder.getsockname()[1]
        await self._heal()

    async def _stop(self) -> None:
        await self._cut()
        if self._placeholder is not None:
            self._placeholder.close()
        cancelled = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*cancelled, return_exceptions=True)

    async def _cut(self) -> None:
        self._conditions.cut = True
        self._conditions.held = False
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._conditions.links):
            link.reset()

    async def _black_hole(self) -> None:
        await self._heal()
        self._conditions.held = True
        for link in list(self._conditions.links):
            link.hold()

    async def _heal(self) -> None:
        self._conditions.cut = self._conditions.held = False
        for link in list(self._conditions.links):
            link.release()
        if self._server is None:
            self._server = await self._loop.create_server(
                lambda: Link(self._conditions, self._target).client,
                sock=_bound_socket(self.port),
                backlog=BACKLOG,
            )


def _bound_socket(port: int) -> socket.socket:
    # Expressly TCP: only then asyncio sets TCP_NODELAY on what is accepted, without which small writes wait 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    return sock


def main(arguments: list[str] | None = None) -> None:
    """Run a proxy until standard input ends; see the parser's description for the lines it takes."""
    parser = argparse.ArgumentParser(
        prog="python -m devstack.proxy",
        description="A TCP proxy on loopback. Prints its port, then answers each line on standard input with "
        "one line of JSON: latency-ms N, cut, black-hole, heal, counters. Ends with the input.",
    )
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0, the default, for a free one")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to each round trip")
    given = parser.parse_args(arguments)
    host, _, port = given.target.rpartition(":")
    with Proxy(host, int(port), given.latency_ms / 1000, port=given.listen) as proxy:
        print(json.dumps({"port": proxy.port}), flush=True)
        _serve(proxy, sys.stdin)


def _serve(proxy: Proxy, lines: Iterable[str]) -> None:
    for line in lines:
        try:
            answer = obey(proxy, line.split())
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def obey(proxy: Proxy, words: list[str]) -> dict[str, Any]:
    """Carry out one control line and return its answer; ValueError when it is not one."""
    match words:
        case ["latency-ms", value]:
            proxy.latency_seconds = float(value) / 1000
        case ["cut"]:
            proxy.cut()
        case ["black-hole"]:
            proxy.black_hole()
        case ["heal"]:
            proxy.heal()
        case ["counters"]:
            pass
        case _:
            raise ValueError(f"unknown command: {' '.join(words)}")
    return proxy.counters()._asdict()


if __name__ == "__main__":
    main()
