"""The graph: pages, and the segments that a job is cut from. It only ever reads.

Invariant: a page that is loaded here was read after `read_at_us`, and malformed data in one text spoils no other.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import batched
from threading import Lock
from typing import Any, LiteralString, NamedTuple
from urllib.parse import urlsplit

import neo4j

from app import neo4j_quries as queries
from app.errors import ConfigurationError, PermanentError, ProcessorError
from app.mirrors import Mirrors, find_mirrors
from app.neo4j_session import QueryTimeoutError, Reader, open_driver
from app.page_builder import WarnOnce, build_pages, check_layer, join_layers
from app.pages import Page
from app.traversal import PageSource, RelatedTexts, Start, walk_together

logger = logging.getLogger(__name__)

MAX_PAGES_A_QUERY = 64
MAX_SPANS_A_QUERY = 5_000
JOB_ANNOTATION_TYPES = ("segmentation", "pagination")  # the first that a manifestation has

_shared_lock = Lock()
_shared_driver: neo4j.Driver | None = None


class SegmentSpan(NamedTuple):
    """A segment that a job is cut from: half-open, in characters."""

    segment_id: str
    start: int
    end: int


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
    ) -> None:
        """`user` None: neo4j; `database` None: the user's home database."""
        self._warn = WarnOnce()
        is_shared = uri is None
        if uri is None:
            self._driver, uri, database = _share_driver()
        else:
            self._driver = open_driver(uri, user or "neo4j", password or "")
        self.graph_id = f"{urlsplit(uri).netloc}/{database or ''}"
        self._reader = Reader(self._driver, database)
        self._understands_us = False
        if is_shared:
            try:
                self.ping()
            except ProcessorError:
                self.close()
                raise

    def relate(self, starts: Sequence[Start], pages: PageSource | None = None) -> list[RelatedTexts | PermanentError]:
        """What is related to each start, or why there can be none; `pages` None: without a cache.

        Raises `OutageError` or `TransientError` for all of them together.
        """
        if logger.isEnabledFor(logging.INFO):
            for start in starts:
                logger.info("Starting BFS traversal from manifestation %s", start.manifestation_id)
        source = self if pages is None else pages
        # What is loaded now is read after the last of the claims returned, so it may carry the latest time.
        read_at_us = max((start.read_at_us for start in starts), default=0)
        return walk_together(starts, lambda needs, at_hand: source.get(needs, read_at_us, at_hand))

    def get(self, needs: Mapping[str, int], read_at_us: int, at_hand: Collection[Page] = ()) -> Mapping[str, Page]:
        """Pages without a cache: a `PageSource`."""
        return self.load_pages(list(needs), read_at_us, at_hand)

    def load_pages(self, ids: Sequence[str], read_at_us: int, at_hand: Collection[Page] = ()) -> dict[str, Page]:
        """A page for every id, read now but for what pages at hand tell. One round trip for every `MAX_PAGES_A_QUERY`.

        `read_at_us`: microseconds on PostgreSQL's clock, of a moment before this call. `at_hand`: see `PageSource`.
        Raises as `relate`.
        """
        pages: dict[str, Page] = {}
        for chunk in batched(ids, MAX_PAGES_A_QUERY):
            mirrors = find_mirrors(chunk, [*at_hand, *pages.values()], read_at_us)
            pages |= self._load_chunk(chunk, read_at_us, mirrors)
        return pages

    def list_segments(self, manifestation_id: str) -> list[SegmentSpan] | None:
        """The segmentation's segments, without one the pagination's, by (start, id); None: no such manifestation.

        Raises `PermanentError` for malformed spans, otherwise as `relate`.
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
        """Raise `ConfigurationError` when waiting would not mend it, `OutageError` when it might."""
        self._reader.verify()
        if not self._understands_us:
            try:
                self._reader.read(queries.READ_PAGES, list, wanted=[])
            except PermanentError as error:
                raise ConfigurationError(f"Neo4j 5.23 or later is needed, with the right to read: {error}") from error
            self._understands_us = True

    def close(self) -> None:
        """Close the connections; the shared driver's too, of which the next one without arguments opens another."""
        global _shared_driver
        with _shared_lock:
            if self._driver is _shared_driver:
                _shared_driver = None
        self._driver.close()

    def _load_chunk(self, ids: Sequence[str], read_at_us: int, mirrors: Mirrors) -> dict[str, Page]:
        try:
            return self._reader.read(
                queries.READ_PAGES,
                lambda rows: build_pages(rows, read_at_us, self._warn, mirrors),
                wanted=[{"id": name, "known": [mirror.key for mirror in mirrors[name]]} for name in ids],
            )
        except QueryTimeoutError:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            logger.warning("Reading %d pages at once took too long; trying half as many", len(ids))
            first = self._load_chunk(ids[:half], read_at_us, mirrors)
            return first | self._load_chunk(ids[half:], read_at_us, mirrors)


def _share_driver() -> tuple[neo4j.Driver, str, str | None]:
    """The process's one driver, made on first use from the settings, its URI, and the database that they name."""
    from app.config import load_settings

    settings = load_settings("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "NEO4J_DATABASE")
    global _shared_driver
    with _shared_lock:
        if _shared_driver is None:
            _shared_driver = open_driver(settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password)
        return _shared_driver, settings.neo4j_uri, settings.neo4j_database
