"""The proxy against real sockets on loopback."""

import asyncio
import hashlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from devstack.proxy import Proxy
from devstack.proxy_server import ProxyServer, event_loop

WAIT_SECONDS = 20.0


class EchoHandler(socketserver.BaseRequestHandler):
    """Sends back what it receives, until the client's end; then ends too."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def down() -> Iterator[EchoServer]:
    """A server that has its port, so that nobody else gets it, but does not listen yet."""
    with EchoServer(("127.0.0.1", 0), EchoHandler, bind_and_activate=False) as server:
        server.server_bind()
        yield server


@contextmanager
def serving(server: EchoServer) -> Iterator[None]:
    server.server_activate()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield
    server.shutdown()


@pytest.fixture
def target() -> Iterator[int]:
    with down() as server, serving(server):
        yield server.server_address[1]


@pytest.fixture
def proxy(target: int) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", target) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_SECONDS)


def receive(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return bytes(received)


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def assert_silent(sock: socket.socket) -> None:
    """Nothing arrives for a moment. It can miss a fault on a slow machine, never invent one."""
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(WAIT_SECONDS)


def test_bytes_pass_both_ways(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        assert ask(sock, b"hello") == b"hello"


def test_the_end_passes_and_the_answer_still_comes(proxy: Proxy) -> None:
    proxy.latency_seconds = 0.02
    with closing(connect(proxy)) as sock:
        sock.sendall(b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 1000) == b"last words"


@pytest.mark.parametrize("latency_seconds", [0.0, 0.01])
def test_megabytes_arrive_whole_and_in_order(proxy: Proxy, latency_seconds: float) -> None:
    proxy.latency_seconds = latency_seconds
    sent = b"".join(number.to_bytes(4) for number in range(4_000_000))
    with closing(connect(proxy)) as sock:
        sender = threading.Thread(target=sock.sendall, args=(sent,))
        sender.start()
        received = receive(sock, len(sent))
        sender.join(WAIT_SECONDS)
    assert hashlib.sha256(received).digest() == hashlib.sha256(sent).digest()
    wait_until(lambda: proxy.counters().bytes == 2 * len(sent))


def test_latency_is_added_to_each_round_trip(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"warm")
        proxy.latency_seconds = 0.03
        began = time.monotonic()
        for _ in range(5):
            ask(sock, b"x")
        assert time.monotonic() - began >= 5 * 0.03


def test_a_new_connection_costs_a_round_trip_too(proxy: Proxy) -> None:
    proxy.latency_seconds = 0.05
    began = time.monotonic()
    with closing(connect(proxy)) as sock:
        ask(sock, b"x")
    assert time.monotonic() - began >= 2 * 0.05


def test_less_latency_keeps_the_order(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"warm")
        proxy.latency_seconds = 0.4
        sock.sendall(b"first")
        wait_until(lambda: proxy.counters().bytes == 2 * 4 + 5)
        proxy.latency_seconds = 0.0
        sock.sendall(b"second")
        assert receive(sock, 11) == b"firstsecond"


def test_turns_on_the_wire_are_counted(proxy: Proxy) -> None:
    with closing(connect(proxy)) as one, closing(connect(proxy)) as other:
        for _ in range(7):
            ask(one, b"ping")
        for _ in range(3):
            ask(other, b"pong!")
        counted = proxy.counters()
    assert counted.round_trips == 10
    assert counted.connections == 2
    assert counted.bytes == 2 * (7 * 4 + 3 * 5)


def test_a_pipeline_is_one_turn(proxy: Proxy) -> None:
    proxy.latency_seconds = 0.2
    with closing(connect(proxy)) as sock:
        for sent in range(1, 5):
            sock.sendall(b"more")
            wait_until(lambda least=4 * sent: proxy.counters().bytes >= least)  # type: ignore[misc]
        receive(sock, 16)
        assert proxy.counters().round_trips == 1


def test_counters_can_be_compared(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"before")
        earlier = proxy.counters()
        ask(sock, b"after")
        passed = proxy.counters().since(earlier)
    assert (passed.round_trips, passed.connections, passed.bytes) == (1, 0, 10)


def test_cut_resets_what_is_open_and_refuses_what_is_new(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"alive")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    assert proxy.counters().connections == 1


def test_heal_after_a_cut_listens_on_the_same_port(proxy: Proxy) -> None:
    port = proxy.port
    for _ in range(3):
        with closing(connect(proxy)) as sock:
            ask(sock, b"alive")
            proxy.cut()
            proxy.heal()
    assert proxy.port == port
    with closing(connect(proxy)) as sock:
        assert ask(sock, b"again") == b"again"


def test_a_black_hole_swallows_what_is_open_until_healed(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"alive")
        proxy.black_hole()
        sock.sendall(b"anyone there?")
        assert_silent(sock)
        assert proxy.counters().bytes == 2 * 5
        proxy.heal()
        assert receive(sock, 13) == b"anyone there?"


def test_a_black_hole_accepts_what_is_new_and_answers_when_healed(proxy: Proxy) -> None:
    proxy.black_hole()
    with closing(connect(proxy)) as sock:
        sock.sendall(b"hello?")
        assert_silent(sock)
        proxy.heal()
        assert receive(sock, 6) == b"hello?"


def test_a_black_hole_holds_what_is_under_way(proxy: Proxy) -> None:
    with closing(connect(proxy)) as sock:
        ask(sock, b"warm")
        proxy.latency_seconds = 0.3
        sock.sendall(b"under way")
        wait_until(lambda: proxy.counters().bytes == 2 * 4 + 9)
        proxy.black_hole()
        proxy.latency_seconds = 0.0
        sock.settimeout(0.6)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(WAIT_SECONDS)
        proxy.heal()
        assert receive(sock, 9) == b"under way"


def test_a_black_hole_can_be_cut(proxy: Proxy) -> None:
    proxy.black_hole()
    with closing(connect(proxy)) as sock:
        wait_until(lambda: proxy.counters().connections == 1)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_a_client_that_resets_frees_the_server(target: int) -> None:
    with Proxy("127.0.0.1", target) as first, Proxy("127.0.0.1", first.port) as second:
        sock = connect(second)
        ask(sock, b"alive")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        wait_until(lambda: not first.open_links and not second.open_links)


def test_ended_connections_are_forgotten(target: int) -> None:
    with Proxy("127.0.0.1", target) as proxy:
        for _ in range(20):
            with closing(connect(proxy)) as sock:
                ask(sock, b"short")
        wait_until(lambda: not proxy.open_links)


def test_small_writes_do_not_wait_for_acknowledgements_either_way(target: int) -> None:
    """Without TCP_NODELAY on both of a link's sockets, answers in pieces take 40 ms and no latency is what it says."""

    async def flags() -> list[int]:
        server = ProxyServer(("127.0.0.1", target), 0.0)
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.listen(0))
        writer.write(b"alive")
        assert await reader.readexactly(5) == b"alive"
        (link,) = server.conditions.links
        sockets = [end.transport.get_extra_info("socket") for end in (link.client, link.server)]
        on = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in sockets]
        await server.obey(["cut"])
        return on

    assert all(asyncio.run(flags(), loop_factory=event_loop))


def test_a_target_that_is_down_resets_and_one_that_is_back_serves() -> None:
    with down() as server, Proxy("127.0.0.1", server.server_address[1]) as proxy:
        with pytest.raises(ConnectionResetError), closing(connect(proxy)) as sock:
            sock.recv(1)
        with serving(server), closing(connect(proxy)) as sock:
            assert ask(sock, b"back") == b"back"


def test_stop_ends_connections_and_frees_the_port(target: int) -> None:
    proxy = Proxy("127.0.0.1", target).start()
    with closing(connect(proxy)) as sock:
        ask(sock, b"alive")
        proxy.stop()
        proxy.stop()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with Proxy("127.0.0.1", target, port=proxy.port) as successor, closing(connect(successor)) as sock:
        assert ask(sock, b"new") == b"new"


def test_the_process_says_what_it_does_not_understand(target: int) -> None:
    with Proxy("127.0.0.1", target) as proxy:
        with pytest.raises(ValueError, match="explode"):
            proxy._order("explode")
        assert proxy.counters().round_trips == 0


def test_the_process_takes_its_latency_from_the_start(target: int) -> None:
    with Proxy("127.0.0.1", target, 0.04) as proxy, closing(connect(proxy)) as sock:
        ask(sock, b"warm")
        began = time.monotonic()
        ask(sock, b"x")
        assert time.monotonic() - began >= 0.04
