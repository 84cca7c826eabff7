"""The first tier: pages in this process's memory, least recently used out first.

Invariant: what is held never exceeds its bound in bytes, and a newer page is never replaced by an older one.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from app.pages.page import Page, size_bytes

ENTRY_BYTES = 300  # of the table around a page: its slot, its key, its entry
SHORT_SECONDS = 5.0  # for how long "does not exist" and "cannot be used" are believed


def is_short_lived(page: Page) -> bool:
    """Whether the page tells of missing or damaged data, which an editor may repair at any time."""
    return not page.exists or bool(page.problem)


class _Entry(NamedTuple):
    page: Page
    size_bytes: int
    expires_at: float


class MemoryTier:
    """Safe to use from several threads. `clock` in seconds."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._lock = Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the pages held and their table take."""
        return self._held_bytes

    def fresh_bytes(self, fresh_since_us: int) -> int:
        """What those take that were not read before then (microseconds)."""
        with self._lock:
            return sum([held.size_bytes for held in self._entries.values() if held.page.read_at_us >= fresh_since_us])

    @property
    def limit_bytes(self) -> int:
        """What they may take."""
        return self._limit_bytes

    def get(self, needs: Mapping[str, int]) -> dict[str, Page]:
        """Those that are here and were not read before the time (microseconds) that `needs` gives for them."""
        found: dict[str, Page] = {}
        now = self._clock()
        with self._lock:
            for wanted, fresh_since_us in needs.items():
                entry = self._entries.get(wanted)
                if entry is not None and entry.page.read_at_us >= fresh_since_us and now < entry.expires_at:
                    found[wanted] = entry.page
                    self._entries.move_to_end(wanted)
        return found

    def put(self, pages: Iterable[Page]) -> None:
        """Hold these, unless newer ones are held or they alone exceed the bound."""
        now = self._clock()
        entries = [
            _Entry(page, size_bytes(page) + ENTRY_BYTES, now + SHORT_SECONDS if is_short_lived(page) else float("inf"))
            for page in pages
        ]
        with self._lock:
            for entry in entries:
                self._put(entry)
            while self._held_bytes > self._limit_bytes:
                _, dropped = self._entries.popitem(last=False)
                self._held_bytes -= dropped.size_bytes

    def _put(self, entry: _Entry) -> None:
        name = entry.page.manifestation_id
        held = self._entries.get(name)
        if held is not None and held.page.read_at_us > entry.page.read_at_us:
            return
        if held is not None:
            del self._entries[name]
            self._held_bytes -= held.size_bytes
        if entry.size_bytes <= self._limit_bytes:
            self._entries[name] = entry
            self._held_bytes += entry.size_bytes
