"""The composition root of ``python -m app.main``: settings to adapters to `SimpleConsumer`; exit codes.

Invariant: nothing else builds the worker's parts, and nothing here does their work.

Exit codes: see `EPILOG`.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # The imports take a second, in which Ctrl-C ends the process as SIGTERM does, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import gc
import logging
import os
import socket
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from app.acknowledge import Acknowledger
from app.budget import ByteBudget
from app.cache import PageCache
from app.charging import Charger
from app.claiming import Claimer
from app.completion import Housekeeper, Relay, Sweep
from app.config import Settings, load_settings, refuse_same_queues
from app.consumer import SimpleConsumer
from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.postgres import make_engine, ping
from app.db.results import PostgresResults
from app.errors import ConfigurationError
from app.heartbeat import Heartbeat
from app.logs import set_worker, setup_logging
from app.neo4j_database import Neo4JDatabase
from app.outage import Gate
from app.page_key import name_clock
from app.parts import Parts
from app.room import Room
from app.settling import Settler
from app.sqs import Queue, QueueFacts, make_client
from app.startup import expect_tables, look_at_graph, persist
from app.stopping import Stop
from app.tasks import TaskService

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

__all__ = ["SimpleConsumer", "main"]

EXIT_CONFIGURATION: Final = 2
BYTES_A_MEGABYTE: Final = 1_000_000
HELPERS_CONNECTIONS: Final = 3
"""To PostgreSQL at most, beside one a lane: the heartbeat's, the housekeeper's, a probe's."""
RESULTS_BYTES: Final = 16_000_000
"""Of results that are being stored at the same time; PostgreSQL's driver makes some five copies of each."""
QUEUE_SETTINGS: Final = (
    "aws_region",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_endpoint_url_sqs",
    "sqs_dead_letter_queue_url",
    "sqs_wait_time_seconds",
    "sqs_batch_size",
    "sqs_batches_in_hand",
    "sqs_visibility_timeout_seconds",
    "polling_wait_time_ms",
    "shutdown_grace_seconds",
    "log_level",
    "log_format",
)
"""What a consumer needs whose subclass handles the messages by itself."""


DESCRIPTION: Final = """Find the related segments of every segment whose message is on the input queue.
Runs until SIGTERM or Ctrl-C; run as many as you like."""
EPILOG: Final = """settings:
  from the environment or .env; env.example explains each

exit codes:
  0        stopped as asked
  2        the settings, queues or credentials are wrong, or what was typed
  3        a thread hung: restart it
  128 + n  a second signal n ended it at once"""


def main(arguments: Sequence[str] = ()) -> int:
    """Run the worker until it is told to stop; its exit code. Exits by itself after ``--help`` and on a usage error."""
    argparse.ArgumentParser(
        prog="python -m app.main",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    try:
        return SimpleConsumer(queue_url=load_settings().sqs_queue_url).run(when_wired=_spare_the_collector)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201  (there may be no log yet)
        return EXIT_CONFIGURATION


def wire(consumer: SimpleConsumer) -> Parts:
    """Everything the consumer works with, from the settings; waits for services that do not answer yet.

    Raises `ConfigurationError`. When the consumer is told to stop meanwhile, the waiting ends.
    """
    settings = load_settings(*QUEUE_SETTINGS) if consumer.handles_itself else load_settings()
    worker = _worker_name()
    set_worker(worker)
    if not logging.getLogger().handlers:
        setup_logging(settings.log_level, settings.log_format)
    consumer.complete(
        batch_size=settings.sqs_batch_size,
        wait_time_seconds=settings.sqs_wait_time_seconds,
        visibility_timeout_seconds=settings.sqs_visibility_timeout_seconds,
        polling_wait_time_ms=settings.polling_wait_time_ms,
    )
    refuse_same_queues(
        {
            "SQS_QUEUE_URL": consumer.queue_url,
            "SQS_COMPLETED_QUEUE_URL": None if consumer.handles_itself else settings.sqs_completed_queue_url,
            "SQS_DEAD_LETTER_QUEUE_URL": settings.sqs_dead_letter_queue_url,
        }
    )
    queues = _Queues.open(consumer, settings)
    facts = queues.check(consumer.stopping)
    parts = Parts(
        queue=queues.polled,
        acknowledger=Acknowledger(queues.segments, queues.dead_letters, facts.max_receive_count),
        heartbeat=Heartbeat(None, queues.segments, visibility_seconds=consumer.visibility_timeout_seconds),
        gate=Gate({"SQS": queues.segments.facts}),
        service=None,
        lanes=_lanes(consumer, settings),
        grace_seconds=settings.shutdown_grace_seconds,
    )
    if consumer.handles_itself:
        parts.helpers = (("heartbeat", parts.heartbeat),)
    else:
        _add_service(parts, queues, settings, consumer, worker)
    return parts


SimpleConsumer.wiring = staticmethod(wire)


def _lanes(consumer: SimpleConsumer, settings: Settings) -> int:
    """A subclass's handler is called from one thread, as the library does, unless somebody has asked for more."""
    is_asked_for = "sqs_batches_in_hand" in settings.model_fields_set
    return settings.sqs_batches_in_hand if is_asked_for or not consumer.handles_itself else 1


def _spare_the_collector() -> None:
    """What the start has made stays: 150,000 objects that each full collection would look through again."""
    gc.collect()
    gc.freeze()


def _add_service(parts: Parts, queues: "_Queues", settings: Settings, consumer: SimpleConsumer, worker: str) -> None:
    """The databases, the service over them, and the threads beside it."""
    engine = make_engine(settings.postgres_url, pool_size=settings.sqs_batches_in_hand + HELPERS_CONNECTIONS)
    graph = Neo4JDatabase(
        settings.neo4j_uri,
        settings.neo4j_user,
        settings.neo4j_password,
        settings.neo4j_database,
        came_further=parts.progress.mark,
    )
    pages = PageCache.connect(
        graph,
        memory_bytes=settings.page_cache_megabytes * BYTES_A_MEGABYTE,
        url=settings.dragonfly_url,
        ttl_seconds=settings.cache_ttl_seconds,
        secret=settings.neo4j_password,
        clock_id=name_clock(settings.postgres_url),
        came_further=parts.progress.mark,
    )
    claims = PostgresClaims(engine, worker, settings.max_attempts)
    results = PostgresResults(engine)
    outbox = PostgresOutbox(engine)
    relay = Relay(outbox, queues.completed)
    parts.heartbeat = Heartbeat(claims, queues.segments, visibility_seconds=consumer.visibility_timeout_seconds)
    parts.gate = Gate(
        {"SQS": queues.segments.facts, "Neo4j": graph.ping, "PostgreSQL": lambda: _probe(engine, service)}
    )
    housekeeper = Housekeeper(relay, Sweep(outbox, relay, queues.segments, graph), parts.gate)
    parts.service = service = TaskService(
        Claimer(claims, lease_seconds=parts.heartbeat.lease_seconds),
        lambda starts: graph.relate(starts, pages),
        Charger(settings.max_attempts),
        Settler(results, housekeeper, parts.gate),
        parts.heartbeat,
        parts.gate,
        Room(parts.progress.mark),
        ByteBudget(RESULTS_BYTES, parts.progress.mark),
    )
    parts.helpers = (("heartbeat", parts.heartbeat), ("housekeeper", housekeeper))
    parts.is_idle = lambda: housekeeper.is_idle
    parts.close = lambda: _close(engine, graph)
    persist(lambda: expect_tables(engine, claims, results), "PostgreSQL", consumer.stopping)
    look_at_graph(graph, consumer.stopping)


@dataclass(frozen=True, slots=True)
class _Queues:
    """The three queues; `polled` is the input queue through a client whose read time-out fits a long poll."""

    polled: Queue
    segments: Queue
    completed: Queue
    dead_letters: Queue | None

    @classmethod
    def open(cls, consumer: SimpleConsumer, settings: Settings) -> "_Queues":
        def client(wait_seconds: int) -> "SQSClient":
            if consumer.given_client is not None:
                return consumer.given_client
            return make_client(
                consumer.given_region or settings.aws_region,
                wait_seconds=wait_seconds,
                connections=settings.sqs_batches_in_hand + 4,
                endpoint_url=settings.aws_endpoint_url_sqs,
                access_key_id=settings.aws_access_key_id,
                secret_access_key=settings.aws_secret_access_key,
                session_token=settings.aws_session_token,
            )

        calls = client(0)
        completed = consumer.queue_url if consumer.handles_itself else settings.sqs_completed_queue_url
        dead = settings.sqs_dead_letter_queue_url
        return cls(
            polled=Queue(client(consumer.wait_time_seconds), consumer.queue_url),
            segments=Queue(calls, consumer.queue_url),
            completed=Queue(calls, completed),
            dead_letters=Queue(calls, dead) if dead else None,
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


def _probe(engine: Engine, service: TaskService) -> None:
    """PostgreSQL is back when it answers, and takes what it could not take before."""
    ping(engine)
    service.catch_up()


def _close(engine: Engine, graph: Neo4JDatabase) -> None:
    engine.dispose()
    graph.close()


def _worker_name() -> str:
    """Of this start of this process: a worker that is restarted is another one."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Lanes may still be parked in a poll; the interpreter would wait for, or trip over, what they are doing.
    os._exit(code)
