"""The composition root of the worker: settings to adapters to a loop that can run.

Invariant: nothing else builds the worker's parts, and nothing here does their work. What is built is whole: it is
handed on once, frozen, and nothing of it is replaced or called back later.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.caching.key import name_clock
from app.caching.tiers import PageCache
from app.config import AWS, Settings, aws_access, load_settings, refuse_same_queues
from app.core.meter import Meter
from app.db.checks import expect_tables, ping
from app.db.claims import PostgresClaims
from app.db.lag import PostgresLag
from app.db.outbox import PostgresOutbox
from app.db.postgres import Database
from app.db.results import PostgresResults
from app.errors import ConfigurationError
from app.logs import set_worker, setup_logging
from app.neo4j_database import Neo4JDatabase
from app.neo4j_database_validator import validate
from app.outbox.relay import Relay
from app.outbox.sweep import Sweep
from app.pages.walk import walk_together
from app.service.charging import Charger
from app.service.claiming import Claimer
from app.service.settling import Settler
from app.sqs.acknowledge import Acknowledger
from app.sqs.queue import Queue, QueueFacts, make_client, open_session
from app.tasks import TaskService
from app.threads.budget import ByteBudget
from app.threads.room import Room
from app.threads.stopping import Stop
from app.worker.handling import MessageHandler, SegmentHandler
from app.worker.heartbeat import Heartbeat, lease_seconds_of
from app.worker.housekeeper import Housekeeper
from app.worker.lookout import Lookout
from app.worker.loop import Loop
from app.worker.parts import Limits, Parts
from app.worker.prober import Prober
from app.worker.startup import SideBySide, persist
from app.worker.tracing import TracedAnnouncer, TracedHandler, open_tracing
from app.worker.watching import SelfKnowledge

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

BYTES_A_MEGABYTE: Final = 1_000_000
HELPERS_CONNECTIONS: Final = 3
"""To PostgreSQL, beside one a lane: the heartbeat's, the housekeeper's, a probe's. The reporter's, once a minute, is
one of them or one more for a moment."""
RECEIVES_A_BATCH: Final = 3
"""Under a backlog: PostgreSQL is paid by the transaction, and one for thirty costs little more than one for ten."""
RESULTS_BYTES: Final = 16_000_000
"""Of results that are being stored at the same time; PostgreSQL's driver makes some five copies of each."""
QUEUE_SETTINGS: Final = (
    *AWS,
    "sqs_dead_letter_queue_url",
    "sqs_wait_time_seconds",
    "sqs_batch_size",
    "sqs_batches_in_hand",
    "sqs_visibility_timeout_seconds",
    "sqs_calls",
    "polling_wait_time_ms",
    "shutdown_grace_seconds",
    "metrics_port",
    "metrics_host",
    "log_level",
    "log_format",
)
"""What a consumer needs whose owner handles the messages."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What whoever builds a consumer by hand has said; None: as the settings say."""

    queue_url: str
    region: str | None = None
    client: "SQSClient | None" = None
    batch_size: int | None = None
    wait_time_seconds: int | None = None
    visibility_timeout_seconds: int | None = None
    polling_wait_time_ms: int | None = None


def build_segment_loop(wanted: Wanted, stop: Stop) -> Loop:
    """The worker: segments through the service. Waits for services that do not answer yet, until `stop` is set.

    Raises `ConfigurationError`.
    """
    settings = load_settings()
    worker = _begin_log(settings)
    limits = replace(_limits(wanted, settings, settings.sqs_batches_in_hand), receives_a_batch=RECEIVES_A_BATCH)
    own = _begin_self(settings, limits, stop, "SQS", "PostgreSQL", "Neo4j")
    tracing = open_tracing(own.meter)
    progress, gate, in_flight, meter = own.progress, own.gate, own.in_flight, tracing or own.meter
    room = Room(progress.mark)
    graph = Neo4JDatabase(
        settings.neo4j_uri,
        settings.neo4j_user,
        settings.neo4j_password,
        settings.neo4j_database,
        meter=meter,
    )
    database = Database(settings.postgres_url, pool_size=limits.lanes + HELPERS_CONNECTIONS, meter=meter)
    claims = PostgresClaims(database, worker, settings.max_attempts)
    results = PostgresResults(database)
    outbox = PostgresOutbox(database)

    def check_postgres(until: Stop) -> None:
        persist(lambda: expect_tables(database, claims, results), "PostgreSQL", until)
        own.checkup.saw("PostgreSQL")

    def check_graph(until: Stop) -> None:
        persist(graph.ping, "Neo4j", until)
        # What is strange in the graph's data is a warning.
        for finding in persist(lambda: validate(graph, full=False), "Neo4j", until) or ():
            log.warning("The graph: %s", finding)
        own.checkup.saw("Neo4j")

    def connect_cache(_: Stop) -> PageCache:
        return PageCache.connect(
            graph,
            memory_bytes=settings.page_cache_megabytes * BYTES_A_MEGABYTE,
            url=settings.dragonfly_url,
            ttl_seconds=settings.cache_ttl_seconds,
            secret=settings.neo4j_password,
            clock_id=name_clock(settings.postgres_url),
            enter=room.shared,
            meter=meter,
        )

    def check_queues(until: Stop) -> QueueFacts:
        facts = queues.check(until)
        own.checkup.saw("SQS")
        return facts

    with ExitStack() as undo:
        with SideBySide(stop) as steps:
            connecting = steps.begin(connect_cache)
            steps.begin(check_postgres)
            steps.begin(check_graph)
            queues = _Queues.open(wanted, settings, settings.sqs_completed_queue_url, limits, meter)
            checking = steps.begin(check_queues)
            pages = connecting.result()
            lookout = Lookout(gate, queues.segments, queues.dead_letters, PostgresLag(database).read)
            undo.callback(stop_serving := own.serve(lookout, lambda: pages.is_shared_up))
        undo.pop_all()
    facts = checking.result()

    relay = Relay(outbox, queues.completed)
    housekeeper = Housekeeper(relay, Sweep(outbox, relay, queues.segments, graph), gate)
    heartbeat = Heartbeat(
        in_flight, queues.segments, visibility_seconds=limits.visibility_timeout_seconds, renewer=claims
    )
    service = TaskService(
        Claimer(claims, lease_seconds=lease_seconds_of(limits.visibility_timeout_seconds)),
        partial(walk_together, source=pages, came_further=progress.mark),
        Charger(settings.max_attempts),
        Settler(results, TracedAnnouncer(housekeeper, tracing) if tracing else housekeeper, gate, meter),
        in_flight,
        gate,
        room,
        ByteBudget(RESULTS_BYTES, progress.mark),
        meter,
    )

    def probe_postgres() -> None:
        """PostgreSQL is back when it answers, and takes what it could not take before."""
        ping(database)
        service.catch_up()

    def close() -> None:
        database.dispose()
        graph.close()
        stop_serving()
        if tracing:
            tracing.close()

    handler = SegmentHandler(service, in_flight)
    parts = Parts(
        queue=queues.polled,
        acknowledger=Acknowledger(queues.segments, queues.dead_letters, facts.max_receive_count),
        in_flight=in_flight,
        gate=gate,
        prober=Prober(gate, {"SQS": queues.segments.facts, "Neo4j": graph.ping, "PostgreSQL": probe_postgres}),
        handler=TracedHandler(handler, tracing) if tracing else handler,
        progress=progress,
        helpers={"heartbeat": heartbeat, "housekeeper": housekeeper, "reporter": own.reporter(lookout)},
        tally=own.tally,
        meter=meter,
        is_idle=lambda: housekeeper.is_idle,
        close=close,
    )
    return Loop(parts, limits, stop)


def build_message_loop(wanted: Wanted, handle_message: Callable[[Any], None], stop: Stop) -> Loop:
    """Every message to `handle_message`, with no database at all. Called from one thread unless more are asked for.

    Raises `ConfigurationError`.
    """
    settings = load_settings(*QUEUE_SETTINGS)
    _begin_log(settings)
    is_asked_for = "sqs_batches_in_hand" in settings.model_fields_set
    limits = _limits(wanted, settings, settings.sqs_batches_in_hand if is_asked_for else 1)
    own = _begin_self(settings, limits, stop, "SQS")
    gate, in_flight, meter = own.gate, own.in_flight, own.meter
    queues = _Queues.open(wanted, settings, None, limits, meter)
    lookout = Lookout(gate, queues.segments, queues.dead_letters)
    with ExitStack() as undo:
        undo.callback(stop_serving := own.serve(lookout))
        facts = queues.check(stop)
        own.checkup.saw("SQS")
        undo.pop_all()
    heartbeat = Heartbeat(in_flight, queues.segments, visibility_seconds=limits.visibility_timeout_seconds)
    parts = Parts(
        queue=queues.polled,
        acknowledger=Acknowledger(queues.segments, queues.dead_letters, facts.max_receive_count),
        in_flight=in_flight,
        gate=gate,
        prober=Prober(gate, {"SQS": queues.segments.facts}),
        handler=MessageHandler(handle_message),
        progress=own.progress,
        helpers={"heartbeat": heartbeat, "reporter": own.reporter(lookout)},
        tally=own.tally,
        meter=meter,
        close=stop_serving,
    )
    return Loop(parts, limits, stop)


def _begin_log(settings: Settings) -> str:
    """Set the log up unless somebody has; this worker's name, of this start of this process."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    set_worker(worker)
    if not logging.getLogger().handlers:
        setup_logging(settings.log_level, settings.log_format)
    return worker


def _begin_self(settings: Settings, limits: Limits, stop: Stop, *dependencies: str) -> SelfKnowledge:
    host, port = settings.metrics_host, settings.metrics_port
    return SelfKnowledge.begin(host, port, stop, dependencies, stall_seconds=limits.stall_seconds)


def _limits(wanted: Wanted, settings: Settings, lanes: int) -> Limits:
    def chosen(given: int | None, configured: int) -> int:
        return configured if given is None else given

    return Limits(
        batch_size=chosen(wanted.batch_size, settings.sqs_batch_size),
        wait_time_seconds=chosen(wanted.wait_time_seconds, settings.sqs_wait_time_seconds),
        visibility_timeout_seconds=chosen(wanted.visibility_timeout_seconds, settings.sqs_visibility_timeout_seconds),
        polling_wait_time_ms=chosen(wanted.polling_wait_time_ms, settings.polling_wait_time_ms),
        lanes=lanes,
        grace_seconds=settings.shutdown_grace_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Queues:
    """The three queues; `polled` is the input queue through a client whose read time-out fits a long poll."""

    polled: Queue
    segments: Queue
    completed: Queue
    dead_letters: Queue | None

    @classmethod
    def open(
        cls, wanted: Wanted, settings: Settings, completed_url: str | None, limits: Limits, meter: Meter
    ) -> "_Queues":
        """Raises `ConfigurationError` when two of them are one. Connects to nothing."""
        dead_letters_url = settings.sqs_dead_letter_queue_url
        refuse_same_queues(
            {
                "SQS_QUEUE_URL": wanted.queue_url,
                "SQS_COMPLETED_QUEUE_URL": completed_url,
                "SQS_DEAD_LETTER_QUEUE_URL": dead_letters_url,
            }
        )

        def client(wait_seconds: int) -> "SQSClient":
            if wanted.client is not None:
                return wanted.client
            access = aws_access(settings)
            if wanted.region is not None:
                access["region"] = wanted.region
            return make_client(
                **access,
                wait_seconds=wait_seconds,
                connections=settings.sqs_batches_in_hand + 4,
                is_lean=settings.sqs_calls == "lean",
                session=session,
            )

        session = open_session()
        calls = client(0)
        return cls(
            polled=Queue(client(limits.wait_time_seconds), wanted.queue_url, meter),
            segments=Queue(calls, wanted.queue_url, meter),
            completed=Queue(calls, completed_url or wanted.queue_url, meter),
            dead_letters=Queue(calls, dead_letters_url, meter) if dead_letters_url else None,
        )

    def check(self, stop: Stop) -> QueueFacts:
        """Each queue is there and lets us in. Raises `ConfigurationError`; waits while SQS does not answer."""
        facts = QueueFacts(None, False, 0)
        for queue in (self.completed, self.dead_letters, self.segments):
            if queue is not None:
                facts = persist(queue.facts, "SQS", stop) or facts
        if facts.is_fifo:
            raise ConfigurationError(
                f"SQS_QUEUE_URL names a FIFO queue ({self.segments.name}); segments are done in any order and re-sent,"
                " so the input queue must be a standard queue."
            )
        return facts
