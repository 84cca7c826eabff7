"""The graph: pages, and the segments that a job is cut from. It only ever reads.

Invariant: a page that is loaded here was read after `read_at_us`; malformed data in one text spoils no other, nor does
a text that takes too long; one walk waits for the server as long as its `Patience` lasts, and one query more at most.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, LiteralString, NamedTuple
from urllib.parse import urlsplit

from app import neo4j_quries as queries
from app.core.meter import NO_METER, Meter
from app.errors import ConfigurationError, OutageError, ProcessorError, QueryTimeoutError, RefusedError
from app.graph.session import QUERY_TIMEOUT_SECONDS, SERVICE, Reader, open_driver
from app.graph.shared_driver import Settings, borrow, give_back
from app.pages.build import WarnOnce, build_pages, check_layer, join_layers
from app.pages.mirrors import Mirrors, find_mirrors
from app.pages.page import Page
from app.pages.reading import MAX_WAIT_SECONDS, Reading

logger = logging.getLogger(__name__)

MAX_PAGES_A_QUERY = 64
SPLIT_INTO = 8  # as many queries take the place of one that took too long: 64 pages, 8, 1
MAX_SPANS_A_QUERY = 5_000
MAX_TEXTS_A_QUERY = 1_000
JOB_ANNOTATION_TYPES = ("segmentation", "pagination")  # the first that a manifestation has


class SegmentSpan(NamedTuple):
    """A segment that a job is cut from: half-open, in characters."""

    segment_id: str
    start: int
    end: int


class TextExtent(NamedTuple):
    """How far a text reaches, in characters; `end` is None when nothing of it has a span."""

    end: int | None


class Neo4JDatabase:
    """Pooled and safe to use from several threads.

    With a URI nothing connects before the first call. Without arguments the settings are read, the process's one
    driver is used, and it connects now: raises `ConfigurationError` or `OutageError` when it cannot.
    """

    def __init__(
        self,
        uri: str | None = None,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        *,
        meter: Meter = NO_METER,
    ) -> None:
        """`user` None: neo4j; `database` None: the user's home database."""
        self._warn = WarnOnce()
        self._closing = threading.Lock()
        self._borrowed: Settings | None = None
        if uri is None:
            self._borrowed, database = _read_settings()
            self._driver = borrow(self._borrowed)
            uri = self._borrowed[0]
        else:
            self._driver = open_driver(uri, user or "neo4j", password or "")
        self.graph_id = f"{urlsplit(uri).netloc}/{database or ''}"
        self._reader = Reader(self._driver, database, meter)
        self._understands_us = False
        self._has_seen_texts = False
        if self._borrowed:
            try:
                self.ping()
            except ProcessorError:
                self.close()
                raise

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """Pages without a cache: a `PageSource`."""
        return self.load_pages(list(needs), reading)

    def load_pages(self, ids: Sequence[str], reading: Reading) -> dict[str, Page]:
        """A page for every id: all that `load_parts` gives."""
        pages: dict[str, Page] = {}
        for part in self.load_parts(ids, reading):
            pages |= part
        return pages

    def load_parts(self, ids: Sequence[str], reading: Reading) -> Iterator[dict[str, Page]]:
        """A page for every id, part by part, read now but for what pages at hand tell.

        One round trip for every `MAX_PAGES_A_QUERY`; what takes too long is read in smaller parts, and all others are
        given before a page that is too slow by itself is raised for. Raises `OutageError` or `TransientError`,
        `QueryTimeoutError` with the pages to blame.
        """
        known = list(reading.at_hand)
        too_slow: list[str] = []
        sizes = _Sizes()
        reason = ""
        parts = [*batched(ids, MAX_PAGES_A_QUERY)][::-1]
        while parts:
            if reading.patience.left <= 0:
                left = sum(map(len, parts))
                reason = f"after {MAX_WAIT_SECONDS:.0f} s of waiting for {SERVICE} in all {left} pages are left to read"
                raise QueryTimeoutError(reason, too_slow)
            part = parts.pop()
            if sizes.is_too_large(part):
                parts += _smaller(part)[::-1]
                continue
            try:
                pages = self._load_part(part, reading, find_mirrors(part, known, reading.read_at_us))
            except QueryTimeoutError as error:
                if len(part) > 1:
                    sizes.note_failure(part)
                    parts += _smaller(part)[::-1]
                else:
                    too_slow += part
                    reason = f"the page of manifestation {part[0]!r} takes too long to read: {error}"
            else:
                self._check_sight(pages)
                known += pages.values()
                yield pages
        if too_slow:
            raise QueryTimeoutError(reason, too_slow)

    def list_segments(self, manifestation_id: str) -> list[SegmentSpan] | None:
        """The segmentation's segments, without one the pagination's, by (start, id); None: no such manifestation.

        Raises `PermanentError` for malformed spans, otherwise as `load_parts`.
        """
        rows = self._reader.read(queries.LIST_SEGMENTS, list, id=manifestation_id)
        if not rows:
            return None
        for wanted in JOB_ANNOTATION_TYPES:
            layers = [
                check_layer(annotation, columns, manifestation_id, self._warn)
                for kind, annotation, columns in rows
                if kind == wanted
            ]
            if layers:
                logger.info("The segments of manifestation %s are those of its %s", manifestation_id, wanted)
                spans = {SegmentSpan(*row) for row in zip(*join_layers(layers), strict=True)}
                return sorted(spans, key=lambda span: (span.start, span.segment_id))
        return []

    def find_extent(self, manifestation_id: str) -> TextExtent | None:
        """Up to where its segments reach, whatever their annotation; None: no such manifestation.

        Raises `OutageError` or `TransientError`.
        """
        rows = self._reader.read(queries.TEXT_EXTENT, list, id=manifestation_id)
        return TextExtent(rows[0][0]) if rows else None

    def list_texts(self) -> Iterator[str]:
        """Ids of all manifestations whose segmentation or pagination has segments, in order, as they are asked for."""
        after = ""
        while rows := self._reader.read(queries.LIST_TEXTS, list, after=after, limit=MAX_TEXTS_A_QUERY):
            after = rows[-1][0]
            yield from (name for (name,) in rows)

    def find_spans(self, segment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(start, end) of those segments that exist and have a span that makes sense."""
        return {
            segment_id: (start, end)
            for chunk in batched(segment_ids, MAX_SPANS_A_QUERY)
            for segment_id, start, end in self._reader.read(queries.FIND_SPANS, list, ids=chunk)
            if type(start) is int and type(end) is int and 0 <= start <= end
        }

    def read_rows(self, query: LiteralString, *, seconds: float, **parameters: Any) -> list[list[Any]]:
        """The rows of one of the queries in app/neo4j_quries.py, within `seconds`. Raises as `Reader.read`."""
        return self._reader.read(query, list, seconds=seconds, **parameters)

    def ping(self) -> None:
        """Raise `ConfigurationError` when waiting would not help, `OutageError` when it might.

        It runs what a batch runs, so that what refuses the one refuses the other.
        """
        self._reader.verify()
        try:
            self._reader.read(queries.READ_PAGES, list, wanted=[{"id": "", "known": []}])
        except RefusedError as error:
            if self._understands_us:
                raise
            raise ConfigurationError(f"Neo4j 5.23 or later is needed, with the right to read: {error}") from error
        self._understands_us = True
        if self._has_seen_texts:
            self._expect_texts()

    def close(self) -> None:
        """Close the connections, unless others share them. What is asked afterwards is answered by `OutageError`."""
        if not self._closing.acquire(blocking=False):
            return
        self._reader.close()
        if self._borrowed:
            give_back(self._borrowed)
        else:
            self._driver.close()

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

    def _check_sight(self, pages: Mapping[str, Page]) -> None:
        """A text that does not exist is an answer only while others do.

        Neo4j shows nothing of what there is no right to see, so that a right which was taken away looks like a graph
        without texts. Raises `OutageError`.
        """
        if any(page.exists for page in pages.values()):
            self._has_seen_texts = True
        elif pages and self._has_seen_texts:
            self._expect_texts()

    def _expect_texts(self) -> None:
        ((sees_texts,),) = self._reader.read(queries.ANY_TEXT, list)
        if not sees_texts:
            raise OutageError(SERVICE, "it shows no text any more: the right to read is gone, or the graph is emptied")


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


def _read_settings() -> tuple[Settings, str | None]:
    """URI, user and password as the environment has them, and the database that it names."""
    from app.config import load_settings

    settings = load_settings("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "NEO4J_DATABASE")
    return (settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password), settings.neo4j_database
