"""One proxied TCP connection: two lanes that keep order, add delay, and count turns on the wire.

Invariant: what one end sent reaches the other end whole and in order, later by the lane's delay and not while
the network is held; ends and resets travel in the same queue as bytes. Delay is not throttling: any number of
bytes may be under way at once, up to a bound that keeps memory finite.
"""

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast, override

MAX_BYTES_UNDER_WAY = 32 * 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Conditions:
    """What the network is like at the moment, shared by all links of a proxy, and what has passed over it.

    Written by the event loop's thread alone, `latency_seconds` excepted; reading is safe from anywhere.
    """

    latency_seconds: float = 0.0
    """Added to each round trip: half of it to each direction."""
    held: bool = False
    """A black hole: nothing is read and nothing moves on, until it is over."""
    cut: bool = False
    """Whoever connects is reset."""
    round_trips: int = 0
    """How often a client spoke first, or again after its server had spoken."""
    connections: int = 0
    bytes: int = 0
    """Of both directions."""
    links: "set[Link]" = field(default_factory=set)


class _Mark(Enum):
    END = auto()
    RESET = auto()


class _Pause(Enum):
    """Why a socket is not read from, so that its peer's own sends come to a stop."""

    NOT_CONNECTED = auto()
    HELD = auto()
    LANE_FULL = auto()
    DESTINATION_FULL = auto()


class Lane:
    """One direction of a link: a queue of (when due, bytes or a mark) towards the other socket."""

    def __init__(self, conditions: Conditions, source: "End", destination: "End") -> None:
        self._loop = asyncio.get_running_loop()
        self._conditions = conditions
        self._source = source
        self._destination = destination
        self._queue: deque[tuple[float, bytes | _Mark]] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: bytes | _Mark) -> None:
        """Send on after half the latency, behind what is queued; at once when there is neither."""
        delay = self._conditions.latency_seconds / 2
        if not delay and not self._queue and not self._conditions.held:
            self._deliver(item)
            return
        self._queue.append((self._loop.time() + delay, item))
        if isinstance(item, bytes):
            self._bytes += len(item)
            if self._bytes > MAX_BYTES_UNDER_WAY:
                self._source.pause(_Pause.LANE_FULL)
        if self._timer is None:
            self._schedule()

    def move(self) -> None:
        """Deliver all that is due; called by the timer, and when a hold is over."""
        self.drop_timer()
        while self._queue and not self._conditions.held and self._queue[0][0] <= self._loop.time():
            _, item = self._queue.popleft()
            if isinstance(item, bytes):
                self._bytes -= len(item)
            self._deliver(item)
        if self._bytes <= MAX_BYTES_UNDER_WAY // 2:
            self._source.resume(_Pause.LANE_FULL)
        self._schedule()

    def drop_timer(self) -> None:
        """Deliver nothing more until the next `put` or `move`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        if self._queue and not self._conditions.held:
            self._timer = self._loop.call_at(self._queue[0][0], self.move)

    def _deliver(self, item: bytes | _Mark) -> None:
        match item:
            case bytes():
                self._destination.transport.write(item)
            case _Mark.END:
                self._destination.finish()
            case _Mark.RESET:
                self._destination.reset()


class End(asyncio.Protocol):
    """One of a link's two sockets."""

    transport: asyncio.Transport
    lane: Lane
    """Takes what this socket receives to the other one."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._pauses: set[_Pause] = set()
        self._received_end = False
        self.finished = False
        """Whether the other peer's end has been passed on to this one."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=MAX_BYTES_UNDER_WAY)
        self.pause(_Pause.NOT_CONNECTED)
        self._link.made(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._link.spoke(self, len(data))
        self.lane.put(data)

    @override
    def eof_received(self) -> bool:
        self._received_end = True
        self.lane.put(_Mark.END)
        return True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost(self)

    @override
    def pause_writing(self) -> None:
        self._link.other(self).pause(_Pause.DESTINATION_FULL)

    @override
    def resume_writing(self) -> None:
        self._link.other(self).resume(_Pause.DESTINATION_FULL)

    def pause(self, reason: _Pause) -> None:
        """Read no more, until every reason for it is gone."""
        self._pauses.add(reason)
        if self._readable():
            self.transport.pause_reading()

    def resume(self, reason: _Pause) -> None:
        """Read again, unless there is another reason not to."""
        if reason in self._pauses:
            self._pauses.discard(reason)
            if not self._pauses and self._readable():
                self.transport.resume_reading()

    def finish(self) -> None:
        """Pass on the other peer's end; when both ends have been passed on, the link is over."""
        self.finished = True
        if self._link.other(self).finished:
            self._link.close()
        elif not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:  # reset by its peer in this moment, which the event loop is about to tell
                self.reset()

    def reset(self) -> None:
        """Close with a TCP reset, whatever is still unsent."""
        if not self.transport.is_closing():
            sock: socket.socket = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.transport.abort()

    def _readable(self) -> bool:
        # A transport that resumes after its end would report that end once more.
        return not self._received_end and not self.transport.is_closing()


class Link:
    """A client's connection and its counterpart to the server."""

    def __init__(self, conditions: Conditions, target: tuple[str, int]) -> None:
        self._conditions = conditions
        self._target = target
        self.client = End(self)
        self.server = End(self)
        self.client.lane = Lane(conditions, self.client, self.server)
        self.server.lane = Lane(conditions, self.server, self.client)
        self._whole = False
        self._server_spoke_last = True
        self._connecting: asyncio.Task[None] | None = None

    def made(self, end: End) -> None:
        """The client is here: call the server. The server is here: let both speak."""
        if end is self.server:
            self._whole = True
            for each in (self.client, self.server):
                each.resume(_Pause.NOT_CONNECTED)
        elif self._conditions.cut:
            self.client.reset()
        else:
            self._conditions.connections += 1
            self._conditions.links.add(self)
        if self._conditions.held:
            self.hold()
        elif end is self.client and not self._conditions.cut:
            self._connecting = asyncio.create_task(self._connect())

    def spoke(self, end: End, size: int) -> None:
        """Count bytes, and a round trip where the turn passes to the client."""
        self._conditions.bytes += size
        if end is self.client and self._server_spoke_last:
            self._conditions.round_trips += 1
        self._server_spoke_last = end is self.server

    def lost(self, end: End) -> None:
        """One socket is gone: what it sent before still arrives, then the other one is reset."""
        other = self.other(end)
        if not self._whole:
            self.reset()
        elif other.transport.is_closing():
            self._forget()
        else:
            end.lane.put(_Mark.RESET)

    def other(self, end: End) -> End:
        """The socket at the other side."""
        return self.server if end is self.client else self.client

    def hold(self) -> None:
        """Stop reading from both peers."""
        for end in self._ends():
            end.pause(_Pause.HELD)

    def release(self) -> None:
        """Move on after a hold: call the server if that is due, send what is queued, read again."""
        if not self._whole and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        for end in self._ends():
            end.lane.move()
            end.resume(_Pause.HELD)

    def close(self) -> None:
        """Both peers have said and been told all: close in order."""
        self._forget()
        for end in self._ends():
            end.transport.close()

    def reset(self) -> None:
        """Reset both sockets at once and forget what is queued."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._forget()
        for end in self._ends():
            end.reset()

    def _ends(self) -> tuple[End, ...]:
        return (self.client, self.server) if self._whole else (self.client,)

    def _forget(self) -> None:
        self._conditions.links.discard(self)
        self.client.lane.drop_timer()
        self.server.lane.drop_timer()

    async def _connect(self) -> None:
        # A handshake is a round trip as well, although no byte of it shows up here.
        await asyncio.sleep(self._conditions.latency_seconds)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, *self._target)
        except OSError:
            self.reset()
