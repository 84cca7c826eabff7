"""Pages that a large job is going to need, read before its walks ask for them.

Invariant: nobody waits for it but who needs a page that is being read at that moment, and who needs one that could not
be read finds out by himself. It reads no more pages than the job has segments, and nothing while pages that the job can
use fill half of the memory; older ones are in nobody's way, and after a while the memory of every worker is full of
them. It is a guest of the room that a suspect has alone: a death by what it reads must not be charged to a segment.

A walk meets the texts of a family that lie near its segment, and all walks of a job together meet all of them. A page
costs half as much in a query for many as in one of its own, so what walks need of them later is not asked for twice:
they wait for what is on its way.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from app.caching.memory import MemoryTier
from app.errors import ProcessorError
from app.pages.page import Page, guessed_bytes
from app.pages.reading import Reading
from app.threads.background import Background, Start

logger = logging.getLogger(__name__)

MAX_PAGES_AT_ONCE: Final = 512

type Get = Callable[[Mapping[str, int], Reading], Mapping[str, Page]]
"""`PageSource.get`."""
type Enter = Callable[[], AbstractContextManager[None]]
"""Makes its caller a guest of a room for as long as the context lasts."""


class ReadAhead:
    """One family at a time. Safe to use from several threads."""

    def __init__(self, get: Get, memory: MemoryTier, *, enter: Enter = nullcontext, start: Start | None = None) -> None:
        """`get` keeps in `memory` what it reads. `enter`: the room that walks are guests of (app/threads/room.py)."""
        self._get = get
        self._memory = memory
        self._enter = enter
        self._beside = Background("reading ahead", start)

    def begin(self, fresh_since_us: int, reading: Reading) -> None:
        """Read what the pages at hand lead to, and on from there, unless it doesn't pay or another family's turn is it.

        No page may be older than `fresh_since_us`.
        """
        if len(reading.at_hand) >= reading.job_segments or not reading.at_hand:
            return
        pages = {page.manifestation_id: page for page in reading.at_hand}

        def work() -> None:
            try:
                self._read(pages, fresh_since_us, reading)
            except ProcessorError as error:
                logger.debug("Reading ahead ends: %s", error)
            except Exception:
                logger.exception("Reading ahead met a bug")

        self._beside.begin(work)

    def _read(self, pages: dict[str, Page], fresh_since_us: int, reading: Reading) -> None:
        own = Reading(reading.read_at_us, pages.values())  # not the walk's patience, nor its progress
        while part := self._next(pages, reading.job_segments - len(pages), fresh_since_us):
            with self._enter():
                pages |= self._get(dict.fromkeys(part, fresh_since_us), own)

    def room_bytes(self, fresh_since_us: int) -> int:
        """How much more of the memory may be filled; less than nothing when too much is."""
        return self._memory.limit_bytes // 2 - self._memory.fresh_bytes(fresh_since_us)

    def _next(self, pages: Mapping[str, Page], most: int, fresh_since_us: int) -> list[str]:
        """Texts that these lead to and that are not among them, as many as there is room for at once."""
        room_bytes = self.room_bytes(fresh_since_us)
        part: dict[str, None] = {}
        for page in pages.values():
            for pair in page.pairs:
                if pair.target not in pages and pair.target not in part:
                    room_bytes -= guessed_bytes(pair)
                    if room_bytes < 0 or len(part) == min(most, MAX_PAGES_AT_ONCE):
                        return [*part]
                    part[pair.target] = None
        return [*part]
