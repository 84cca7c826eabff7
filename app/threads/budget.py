"""Memory by bytes: how much of it the threads of this process may take at once for work whose size differs much.

Invariant: what is reserved at the same time never exceeds the limit, but for a reservation that does so by itself:
that one is alone. Reservations come to their turn in the order in which they were asked for, so a large one waits for
those before it, and small ones that came later wait for it.

Whoever holds a reservation must not ask for another: two that did would wait for each other for ever.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Final

STEP_SECONDS: Final = 1.0  # a wait is at most so long before the caller may say that it still waits


class ByteBudget:
    """Safe to use from several threads. `came_further` is called every `STEP_SECONDS` while a thread waits."""

    def __init__(self, limit_bytes: int, came_further: Callable[[], None] = lambda: None) -> None:
        self._limit_bytes = limit_bytes
        self._came_further = came_further
        self._changed = Condition()
        self._reserved_bytes = 0
        self._waiting: deque[object] = deque()

    @property
    def reserved_bytes(self) -> int:
        """What is reserved now."""
        return self._reserved_bytes

    @contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Hold `size_bytes` for as long as the block lasts; waits until they are free."""
        self._wait(size_bytes)
        try:
            yield
        finally:
            with self._changed:
                self._reserved_bytes -= size_bytes
                self._changed.notify_all()

    def _wait(self, size_bytes: int) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
        try:
            while not self._takes(ticket, size_bytes):
                self._came_further()
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _takes(self, ticket: object, size_bytes: int) -> bool:
        """Wait for a step; whether the bytes were reserved."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_free(ticket, size_bytes), STEP_SECONDS):
                return False
            self._reserved_bytes += size_bytes
            return True

    def _is_free(self, ticket: object, size_bytes: int) -> bool:
        if self._waiting[0] is not ticket:
            return False
        return self._reserved_bytes == 0 or self._reserved_bytes + size_bytes <= self._limit_bytes
