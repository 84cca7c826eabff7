"""The process behind `devstack.proxy`: listens, makes links, and obeys lines on standard input until that ends.

Invariant: everything happens on one event loop, so that what an answer counts is all that had passed by then. While
connections are cut the port stays its own, so that healing always works.
"""

import argparse
import asyncio
import json
import selectors
import socket
import sys
from typing import Any, Final

from devstack.relay import Conditions, Link

HOST: Final = "127.0.0.1"
BACKLOG: Final = 512


class ProxyServer:
    """Forwards connections on a loopback port to `target`, a host and a port."""

    def __init__(self, target: tuple[str, int], latency_seconds: float) -> None:
        self.conditions = Conditions(latency_seconds)
        self._target = target
        self._placeholder: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """On `port`, 0 for any free one; which it is."""
        # Bound but not listening: it refuses, and nobody else is given the port while we do not listen.
        self._placeholder = _bound_socket(port)
        await self._heal()
        return self._port

    async def obey(self, words: list[str]) -> dict[str, int]:
        """Carry out one control line and return what has passed; ValueError when it is not one."""
        match words:
            case ["latency-ms", value]:
                self.conditions.latency_seconds = float(value) / 1000
            case ["cut"]:
                self._cut()
            case ["black-hole"]:
                await self._heal()
                self.conditions.held = True
                for link in list(self.conditions.links):
                    link.hold()
            case ["heal"]:
                await self._heal()
            case ["counters"]:
                pass
            case _:
                raise ValueError(f"unknown command: {' '.join(words)}")
        now = self.conditions
        return {
            "round_trips": now.round_trips,
            "connections": now.connections,
            "bytes": now.bytes,
            "open_links": len(now.links),
        }

    @property
    def _port(self) -> int:
        assert self._placeholder is not None
        return int(self._placeholder.getsockname()[1])

    def _cut(self) -> None:
        self.conditions.cut = True
        self.conditions.held = False
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self.conditions.links):
            link.reset()

    async def _heal(self) -> None:
        self.conditions.cut = self.conditions.held = False
        for link in list(self.conditions.links):
            link.release()
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Link(self.conditions, self._target).client, sock=_bound_socket(self._port), backlog=BACKLOG
            )


def _bound_socket(port: int) -> socket.socket:
    # Expressly TCP: only then asyncio sets TCP_NODELAY on what is accepted, without which small writes wait 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    return sock


async def serve(server: ProxyServer, port: int) -> None:
    """Say the port, then answer each line of standard input with one line of JSON; until there are no more."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps({"port": await server.listen(port)}), flush=True)
    while line := await lines.readline():
        answer: dict[str, Any]
        try:
            answer = await server.obey(line.decode().split())
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await server.obey(["cut"])


def event_loop() -> asyncio.SelectorEventLoop:
    """epoll counts whole milliseconds, too coarse for half of a 1 ms round trip; select does not."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Run a proxy until standard input ends; see the parser's description for the lines it takes."""
    parser = argparse.ArgumentParser(
        prog="python -m devstack.proxy_server",
        description="A TCP proxy on loopback. Prints its port, then answers each line on standard input with "
        "one line of JSON: latency-ms N, cut, black-hole, heal, counters. Ends with the input.",
    )
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0, the default, for a free one")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to each round trip")
    given = parser.parse_args()
    host, _, port = given.target.rpartition(":")
    server = ProxyServer((host, int(port)), given.latency_ms / 1000)
    asyncio.run(serve(server, given.listen), loop_factory=event_loop)


if __name__ == "__main__":
    main()
