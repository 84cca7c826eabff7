"""The graph: pages, and the segments that a job is cut from. It only ever reads.

Invariant: malformed data in one text spoils no other. How pages are read: app/graph/page_reading.py.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any, LiteralString, NamedTuple
from urllib.parse import urlsplit

from app import neo4j_quries as queries
from app.core.meter import NO_METER, Meter
from app.errors import ConfigurationError, ProcessorError, RefusedError
from app.graph.page_reading import PageReader
from app.graph.session import Reader, open_driver
from app.graph.shared_driver import Settings, borrow, give_back
from app.pages.build import WarnOnce, check_layer, join_layers

logger = logging.getLogger(__name__)

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


class Neo4JDatabase(PageReader):
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
        self._closing = threading.Lock()
        self._borrowed: Settings | None = None
        if uri is None:
            self._borrowed, database = _read_settings()
            self._driver = borrow(self._borrowed)
            uri = self._borrowed[0]
        else:
            self._driver = open_driver(uri, user or "neo4j", password or "")
        self.graph_id = f"{urlsplit(uri).netloc}/{database or ''}"
        super().__init__(Reader(self._driver, database, meter), WarnOnce())
        self._understands_us = False
        if self._borrowed:
            try:
                self.ping()
            except ProcessorError:
                self.close()
                raise

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
            self.probe()
        except RefusedError as error:
            if self._understands_us:
                raise
            raise ConfigurationError(f"Neo4j 5.23 or later is needed, with the right to read: {error}") from error
        self._understands_us = True
        self.check_sight()

    def close(self) -> None:
        """Close the connections, unless others share them. What is asked afterwards is answered by `OutageError`."""
        if not self._closing.acquire(blocking=False):
            return
        self._reader.close()
        if self._borrowed:
            give_back(self._borrowed)
        else:
            self._driver.close()


def _read_settings() -> tuple[Settings, str | None]:
    """URI, user and password as the environment has them, and the database that it names."""
    from app.config import load_settings

    settings = load_settings("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "NEO4J_DATABASE")
    return (settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password), settings.neo4j_database
