"""Pages from the graph: several a query, in smaller parts where that takes too long.

Invariant: a page that is loaded here was read after `read_at_us`; malformed data in one text spoils no other, nor does
a text that takes too long; one walk waits for the server as long as its `Patience` lasts, and one query more at most.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched

from app import neo4j_quries as queries
from app.errors import OutageError, QueryTimeoutError
from app.graph.session import QUERY_TIMEOUT_SECONDS, SERVICE, Reader
from app.pages.build import WarnOnce, build_pages
from app.pages.mirrors import Mirrors, find_mirrors
from app.pages.page import Page
from app.pages.reading import MAX_WAIT_SECONDS, Reading

logger = logging.getLogger("app.neo4j_database")
"""The graph speaks with one name, whatever its parts."""

MAX_PAGES_A_QUERY = 64
SPLIT_INTO = 8  # as many queries take the place of one that took too long: 64 pages, 8, 1


class PageReader:
    """Safe to use from several threads."""

    def __init__(self, reader: Reader, warn: WarnOnce) -> None:
        """`warn`: says of malformed data what it has not said yet."""
        self._reader = reader
        self._warn = warn
        self._has_seen_texts = False

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """Pages without a cache: a `PageSource`."""
        return self.load_pages(needs, reading)

    def load_pages(self, needs: Mapping[str, int], reading: Reading) -> dict[str, Page]:
        """A page for every id: all that `load_parts` gives."""
        pages: dict[str, Page] = {}
        for part in self.load_parts(needs, reading):
            pages |= part
        return pages

    def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[dict[str, Page]]:
        """A page for every id of `needs`, part by part, read now but for what pages at hand tell.

        One round trip for every `MAX_PAGES_A_QUERY`; what takes too long is read in smaller parts, and all others are
        given before a page that is too slow by itself is raised for. Raises `OutageError` or `TransientError`,
        `QueryTimeoutError` with the pages to blame.
        """
        known = {page.manifestation_id: page for page in reading.at_hand}
        too_slow: list[str] = []
        sizes = _Sizes()
        reason = ""
        parts = [*batched(needs, MAX_PAGES_A_QUERY)][::-1]
        while parts:
            if reading.patience.left <= 0:
                left = sum(map(len, parts))
                reason = f"after {MAX_WAIT_SECONDS:.0f} s of waiting for {SERVICE} in all {left} pages are left to read"
                raise QueryTimeoutError(reason, too_slow)
            part = parts.pop()
            if sizes.is_too_large(part):
                parts += _smaller(part)[::-1]
                continue
            mirrors = find_mirrors({name: needs[name] for name in part}, known.values(), reading.read_at_us)
            try:
                pages = self._load_part(part, reading, mirrors)
            except QueryTimeoutError as error:
                if len(part) > 1:
                    sizes.note_failure(part)
                    parts += _smaller(part)[::-1]
                else:
                    too_slow += part
                    reason = f"the page of manifestation {part[0]!r} takes too long to read: {error}"
            else:
                self._note_texts(pages)
                known |= pages  # also in place of an older page that was too old for whoever needs it
                yield pages
        if too_slow:
            raise QueryTimeoutError(reason, too_slow)

    def probe(self) -> None:
        """What a batch runs, so that what refuses the one refuses the other. Raises as `load_parts`."""
        self._reader.read(queries.READ_PAGES, list, wanted=[{"id": "", "known": []}])

    def check_sight(self) -> None:
        """Raise `OutageError` when there were texts to be seen and are none any more.

        Neo4j shows nothing of what there is no right to see, so that a right which was taken away looks like a graph
        without texts.
        """
        if self._has_seen_texts:
            ((sees_texts,),) = self._reader.read(queries.ANY_TEXT, list)
            if not sees_texts:
                raise OutageError(
                    SERVICE, "it shows no text any more: the right to read is gone, or the graph is emptied"
                )

    def _load_part(self, ids: Sequence[str], reading: Reading, mirrors: Mirrors) -> dict[str, Page]:
        """In one query. A page by itself whose rows keep us busy, not waiting, is given the time that it takes."""
        seconds = QUERY_TIMEOUT_SECONDS
        while True:
            ends_at, waits_until = time.monotonic() + seconds / 2, reading.patience.left
            try:
                return self._reader.read(
                    queries.READ_PAGES,
                    lambda rows: build_pages(rows, reading.read_at_us, self._warn, mirrors),
                    seconds=seconds,
                    patience=reading.patience,
                    came_further=reading.came_further,
                    wanted=[{"id": name, "known": [mirror.key for mirror in mirrors[name]]} for name in ids],
                )
            except QueryTimeoutError:
                waited = waits_until - reading.patience.left
                if len(ids) > 1 or time.monotonic() - waited < ends_at:
                    raise
                seconds *= 2

    def _note_texts(self, pages: Mapping[str, Page]) -> None:
        """A text that does not exist is an answer only while others do. Raises as `check_sight`."""
        if any(page.exists for page in pages.values()):
            self._has_seen_texts = True
        elif pages:
            self.check_sight()


class _Sizes:
    """How many pages at once are too many: as many as took too long twice. Once it may be for a single slow page."""

    def __init__(self) -> None:
        self._failed: set[int] = set()
        self._too_large = MAX_PAGES_A_QUERY + 1

    def is_too_large(self, part: Sequence[str]) -> bool:
        return len(part) >= self._too_large

    def note_failure(self, part: Sequence[str]) -> None:
        size = len(part)
        logger.warning("Reading %d pages at once took too long; trying %d at once", size, _part_of(size))
        if size in self._failed:
            self._too_large = min(self._too_large, size)
        self._failed.add(size)


def _part_of(size: int) -> int:
    return -(-size // SPLIT_INTO)


def _smaller(part: Sequence[str]) -> list[tuple[str, ...]]:
    """The same pages in several queries."""
    return [*batched(part, _part_of(len(part)))]
