"""Builds what the producer's side works with, each part from the settings that it alone needs.

Invariant: nothing is read or connected to before its first use. A command that uses several parts first calls
`require` with the variables of all of them, so that one message names every offender.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, Final, LiteralString

from app.config import AWS, aws_access, load_settings
from app.db.checks import missing_tables
from app.db.jobs import PostgresJobs
from app.db.outbox import PostgresOutbox
from app.db.postgres import Database
from app.db.repairs import PostgresRepairs
from app.db.standing import PostgresStandings
from app.db.views import PostgresViews
from app.errors import ConfigurationError, ProcessorError, SchemaError
from app.jobs.live import LiveRelations
from app.jobs.producer import Producer
from app.logs import one_line
from app.outbox.relay import Relay
from app.outbox.sweep import Sweep
from app.sqs.dead_letters import WAIT_SECONDS as DEAD_LETTERS_WAIT_SECONDS
from app.sqs.queue import Queue, make_queue

if TYPE_CHECKING:
    from app.caching.tiers import PageCache
    from app.neo4j_database import Neo4JDatabase, TextExtent
    from app.pages.page import Page
    from app.pages.reading import Reading

STORE: Final = ("POSTGRES_URL",)
SEGMENTS_QUEUE: Final = (*AWS, "SQS_QUEUE_URL")
COMPLETED_QUEUE: Final = (*AWS, "SQS_COMPLETED_QUEUE_URL")
DEAD_LETTERS: Final = (*AWS, "SQS_DEAD_LETTER_QUEUE_URL")
GRAPH: Final = ("NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD", "NEO4J_DATABASE")
PAGES: Final = ("PAGE_CACHE_MEGABYTES",)
BYTES_A_MEGABYTE: Final = 1_000_000


def require(*names: str) -> None:
    """Check these variables together. Raises `ConfigurationError` that names every offender."""
    load_settings(*names)


class Graph:
    """Neo4j for those who ask it rarely: connected to at the first question. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: Neo4JDatabase | None = None

    def list_segments(self, manifestation_id: str) -> Sequence[tuple[str, int, int]] | None:
        """See `app.core.jobs.SegmentSource`."""
        return self._database().list_segments(manifestation_id)

    def find_spans(self, segment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """See `app.core.jobs.SegmentSource`."""
        return self._database().find_spans(segment_ids)

    def list_texts(self) -> Iterator[str]:
        """Ids of all texts that a job can be cut from."""
        return self._database().list_texts()

    def get(self, needs: Mapping[str, int], reading: "Reading") -> "Mapping[str, Page]":
        """See `app.pages.walk.PageSource`: pages as they are in the graph now."""
        return self._database().get(needs, reading)

    def find_extent(self, manifestation_id: str) -> "TextExtent | None":
        """See `Neo4JDatabase.find_extent`."""
        return self._database().find_extent(manifestation_id)

    def ping(self) -> None:
        """Raise `ConfigurationError` or `OutageError` when Neo4j can't be read."""
        self._database().ping()

    def close(self) -> None:
        """Close what was opened."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def make_page_cache(self, memory_bytes: int) -> "PageCache":
        """Pages that are kept in this process only: its own clock may date them."""
        from app.caching.memory import MemoryTier
        from app.caching.tiers import PageCache

        return PageCache(self._database(), MemoryTier(memory_bytes))

    def read_rows(self, query: LiteralString, *, seconds: float, **parameters: Any) -> list[list[Any]]:
        """See `Neo4JDatabase.read_rows`."""
        return self._database().read_rows(query, seconds=seconds, **parameters)

    def _database(self) -> "Neo4JDatabase":
        from app.neo4j_database import Neo4JDatabase

        with self._lock:
            if self._opened is None:
                settings = load_settings(*GRAPH)
                self._opened = Neo4JDatabase(
                    settings.neo4j_uri,
                    settings.neo4j_user,
                    settings.neo4j_password,
                    settings.neo4j_database,
                )
            return self._opened


class made_once[T](cached_property[T]):
    """A part that is made by whoever first asks for it; others who ask meanwhile wait for that one."""

    def __get__(self, parts: "LazyParts", owner: type | None = None) -> T:  # type: ignore[override]
        with parts.making:
            return super().__get__(parts, owner)


class LazyParts:
    """The parts, each made when it is first asked for. Raises `ConfigurationError` then. Safe to share."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.making = RLock()
        """Held while a part is made; parts are made of other parts."""

    @made_once
    def database(self) -> Database:
        """PostgreSQL."""
        return Database(load_settings(*STORE).postgres_url, application_name="segment-jobs")

    @made_once
    def jobs(self) -> PostgresJobs:
        """Jobs in PostgreSQL."""
        return PostgresJobs(self.database)

    @made_once
    def views(self) -> PostgresViews:
        """Pages of jobs and segments."""
        return PostgresViews(self.database)

    @made_once
    def repairs(self) -> PostgresRepairs:
        """An operator's statements."""
        return PostgresRepairs(self.database)

    @made_once
    def standings(self) -> PostgresStandings:
        """Jobs, looked at closely."""
        return PostgresStandings(self.database)

    @made_once
    def queue(self) -> Queue:
        """The input queue."""
        settings = load_settings(*SEGMENTS_QUEUE)
        return make_queue(settings.sqs_queue_url, **aws_access(settings))

    @made_once
    def dead_letters(self) -> Queue:
        """The dead-letter queue; a receive of it is not repeated by itself."""
        settings = load_settings(*DEAD_LETTERS)
        if settings.sqs_dead_letter_queue_url is None:
            raise ConfigurationError(
                "SQS_DEAD_LETTER_QUEUE_URL is not set: it names the queue that holds the dead letters, also those that"
                " the input queue's redrive policy moves"
            )
        return make_queue(
            settings.sqs_dead_letter_queue_url, wait_seconds=DEAD_LETTERS_WAIT_SECONDS, **aws_access(settings)
        )

    @made_once
    def producer(self) -> Producer:
        """Makes jobs and sends their messages."""
        return Producer(self.jobs, self.queue, self.graph)

    @made_once
    def pages(self) -> "PageCache":
        """Pages of this process's own, for all who look at the graph as it is now."""
        return self.graph.make_page_cache(load_settings(*PAGES).page_cache_megabytes * BYTES_A_MEGABYTE)

    @made_once
    def live(self) -> LiveRelations:
        """Relations straight from the graph."""
        return LiveRelations(self.pages)

    @made_once
    def sweep(self) -> Sweep:
        """The worker's sweep."""
        settings = load_settings(*COMPLETED_QUEUE)
        outbox = PostgresOutbox(self.database)
        relay = Relay(outbox, make_queue(settings.sqs_completed_queue_url, **aws_access(settings)))
        return Sweep(outbox, relay, self.queue, self.graph)

    def explain(self, error: ProcessorError) -> str:
        """`error` on one line; when the tables are what is missing, that and the remedy instead."""
        with suppress(ProcessorError):
            if isinstance(error, SchemaError) and "database" in self.__dict__:
                missing = missing_tables(self.database)
                if missing:
                    return f"the database has no {', no '.join(missing)}: run `alembic upgrade head`"
        return one_line(str(error))

    def close(self) -> None:
        """Close what was opened; nothing is made for it."""
        with suppress(KeyError):
            self.__dict__["database"].dispose()
        self.graph.close()
