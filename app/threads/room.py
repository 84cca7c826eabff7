"""A room that many share or one has to itself: how a suspect is worked on alone in its process.

Invariant: while one has the room nobody else is in it, and whoever waits for it alone gets it next: new guests wait
until then, so that a stream of ordinary work can't starve it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STEP_SECONDS: Final = 1.0
"""How often a waiting thread reports progress."""


class Room:
    """Safe to use from several threads; not to be entered twice by one. `came_further` is called while waiting."""

    def __init__(self, came_further: Callable[[], None] = lambda: None) -> None:
        self._came_further = came_further
        self._changed = threading.Condition()
        self._guests = 0
        self._waiting_alone = 0
        self._is_taken = False

    @property
    def waiting_alone(self) -> int:
        """How many wait to have it alone."""
        return self._waiting_alone

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others who share it."""
        with self._changed:
            self._wait_while(lambda: self._is_taken or self._waiting_alone > 0)
            self._guests += 1
        try:
            yield
        finally:
            with self._changed:
                self._guests -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody else, once those who share it now have left."""
        with self._changed:
            self._waiting_alone += 1
            try:
                self._wait_while(lambda: self._is_taken or self._guests > 0)
                self._is_taken = True
            finally:
                self._waiting_alone -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()

    def _wait_while(self, is_full: Callable[[], bool]) -> None:
        while is_full():
            self._changed.wait(STEP_SECONDS)
            self._came_further()
