"""Open connections that threads share, each made when it is first needed.

Invariant: at most `most` are open at a time, each idle or in the hands of one thread, and whatever a borrower ends by,
its place is free afterwards. Only one that was made since the last `dispose` and has nothing open on it is lent again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import Final, NamedTuple, Protocol

from app.errors import TransientError

WAIT_SECONDS: Final = 10.0
"""How long a borrower waits for a place."""
RECYCLE_SECONDS: Final = 1_800.0
"""The age from which a connection is not lent again: what keeps its state between us and the server may forget it."""


class Connection(Protocol):
    """What the pool knows of a connection."""

    @property
    def is_idle(self) -> bool:
        """It is open, and there is no statement or transaction on it."""
        ...

    def close(self) -> None:
        """End it, whatever is open on it."""
        ...


class _Made[C](NamedTuple):
    connection: C
    at: float
    generation: int


class Pool[C: Connection]:
    """Lends what `connect` makes. Nothing connects before the first use. Safe to share between threads."""

    def __init__(
        self,
        connect: Callable[[], C],
        is_cut: Callable[[Exception], bool],
        *,
        most: int,
        keep: int,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `most` are open, at most `keep` of them idle. `is_cut` tells that the server was lost by an error."""
        self._connect = connect
        self._is_cut = is_cut
        self._keep = keep
        self._wait_seconds = wait_seconds
        self._clock = clock
        # Who has a place has at most one connection, and makes one only while none is idle: so places bound them all.
        self._places = BoundedSemaphore(most)
        self._lock = Lock()
        self._idle: list[_Made[C]] = []
        self._generation = 0

    @contextmanager
    def lend(self) -> Iterator[C]:
        """A connection for as long as the context lasts: the one that came back last, or a new one.

        When the context ends by an error that says that it was cut, all others of its time are disposed of too: a
        server that ends one ends all, as a rule. Raises `TransientError` when no place gets free in time, and what
        `connect` raises.
        """
        if not self._places.acquire(timeout=self._wait_seconds):
            raise TransientError("no PostgreSQL connection was free in time")
        try:
            made = self._take()
            try:
                yield made.connection
            except Exception as error:
                if self._is_cut(error):
                    self._dispose_of(made.generation)
                raise
            finally:
                self._give_back(made)
        finally:
            self._places.release()

    def dispose(self) -> None:
        """Close what is idle now, and what is lent when it comes back. Whoever borrows next gets a new one."""
        self._dispose_of(self._generation)

    def _take(self) -> _Made[C]:
        while (made := self._pop()) is not None:
            if self._clock() - made.at < RECYCLE_SECONDS:
                return made
            made.connection.close()
        generation = self._generation  # as it is before: a dispose while it connects is about this one too
        return _Made(self._connect(), self._clock(), generation)

    def _pop(self) -> _Made[C] | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, made: _Made[C]) -> None:
        with self._lock:
            is_kept = made.generation == self._generation and len(self._idle) < self._keep and made.connection.is_idle
            if is_kept:
                self._idle.append(made)
        if not is_kept:
            made.connection.close()

    def _dispose_of(self, generation: int) -> None:
        """Of this one and none that was made since: who is late to hear of a cut must not cut off the others' new."""
        with self._lock:
            if generation != self._generation:
                return
            self._generation += 1
            idle, self._idle = self._idle, []
        for made in idle:
            made.connection.close()
