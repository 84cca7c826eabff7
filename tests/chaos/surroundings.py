"""What a run stands on: a stack of its own, a database and queues nobody has used, a proxy before each service.

Invariant: the workers reach every service through its proxy only; the harness goes straight to the services.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import neo4j
import redis

from app.sqs.queue import Queue, make_client
from devstack.families import Family, empty_graph, load_family
from devstack.proxy import Proxy, moved
from devstack.stack import Stack
from tests.support.answers import Question, example_files, read_example
from tests.support.engine import Engine
from tests.support.services import base_environment, migrate
from tests.support.stacks import reserve

SERVICES: Final = ("postgres", "neo4j", "cache", "sqs")
VARIABLES: Final = {
    "postgres": "POSTGRES_URL",
    "neo4j": "NEO4J_URI",
    "cache": "DRAGONFLY_URL",
    "sqs": "AWS_ENDPOINT_URL_SQS",
}
BASE_LATENCY_SECONDS: Final = 0.02
"""Of each round trip, always: so that work takes a while, and a random moment is often the middle of some."""
VISIBILITY_SECONDS: Final = 10
MAX_ATTEMPTS: Final = 5
MAX_RECEIVE_COUNT: Final = 50
"""Each death costs all that the worker held a receive; what SQS itself moves to the dead letters counts as wrong."""
GRACE_SECONDS: Final = 8
SWEEP_SECONDS: Final = 5.0
RESEND_AFTER_SECONDS: Final = 20.0
"""A real worker sweeps every 30 s and re-sends what was untouched for 15 min; a run has no time for that."""
WORKER_SETTINGS: Final = {
    "SQS_WAIT_TIME_SECONDS": "2",
    "SQS_BATCH_SIZE": "5",
    "SQS_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS),
    "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
    "PYTHONUNBUFFERED": "1",
}
PREFIX: Final = "chaos"

# What becomes of every segment, written down by PostgreSQL itself in the transaction that does it.
AUDIT: Final = """
CREATE TABLE chaos_audit (
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    task_id uuid NOT NULL,
    was text NOT NULL,
    became text NOT NULL,
    old_token uuid,
    new_token uuid,
    old_lease timestamptz,
    old_retry_at timestamptz,
    old_failed_at timestamptz,
    old_worker text,
    new_worker text,
    old_attempts integer NOT NULL,
    new_attempts integer NOT NULL,
    old_alone boolean NOT NULL,
    new_alone boolean NOT NULL,
    error text
);
CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_audit (task_id, was, became, old_token, new_token, old_lease, old_retry_at,
                             old_failed_at, old_worker, new_worker, old_attempts, new_attempts, old_alone,
                             new_alone, error)
    VALUES (NEW.task_id, OLD.status, NEW.status, OLD.claim_token, NEW.claim_token, OLD.lease_expires_at, OLD.retry_at,
            OLD.failed_at, OLD.claimed_by, NEW.claimed_by, OLD.attempts, NEW.attempts,
            OLD.claimed_alone, NEW.claimed_alone, NEW.error_message);
    RETURN NULL;
END
$$;
CREATE TRIGGER chaos_audit AFTER UPDATE ON segment_task FOR EACH ROW
WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.claim_token IS DISTINCT FROM NEW.claim_token)
EXECUTE FUNCTION chaos_audit();
"""


@dataclass(slots=True)
class Library:
    """The texts of all example families, and the right answers."""

    families: list[Family] = field(default_factory=list)
    answers: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """Manifestation to segment to result; only of texts that a job can be made of."""
    segments: dict[str, list[Question]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Library":
        """From the example files; their ids do not collide."""
        library = cls()
        for path in example_files():
            family, questions = read_example(path)
            library.families.append(family)
            for question in questions:
                library.answers.setdefault(question.manifestation_id, {})[question.segment_id] = question.related
                library.segments.setdefault(question.manifestation_id, []).append(question)
        names = [name for family in library.families for name in family.manifestations]
        assert len(names) == len(set(names)), "the example families share ids"
        return library


@dataclass(slots=True)
class Surroundings:
    """Everything around the workers. `admin` is the engine on the run's database, past the proxy."""

    stack: Stack
    library: Library
    proxies: dict[str, Proxy]
    admin: Engine
    segments: Queue
    completed: Queue
    dead_letters: Queue
    cache_url: str
    neo4j_uri: str
    neo4j_auth: tuple[str, str]
    database: str
    environment: dict[str, str]
    """The workers'."""

    def cache(self) -> "redis.Redis":
        """A client of the cache, past the proxy."""
        return redis.Redis.from_url(self.cache_url, socket_timeout=3, socket_connect_timeout=3)

    def heal(self) -> None:
        """Every network as it was at the start."""
        for proxy in self.proxies.values():
            proxy.heal()
            proxy.latency_seconds = BASE_LATENCY_SECONDS


@contextmanager
def surroundings(run: str) -> Iterator[Surroundings]:
    """Started, empty but for the graph, and taken down at the end. `run` names the database and the queues."""
    logging.getLogger("neo4j").setLevel(logging.ERROR)
    with ExitStack() as closing:
        stack = Stack(name=closing.enter_context(reserve(PREFIX)), durable_queues=True, say=lambda _: None)
        closing.callback(stack.down)
        stack.up()
        environment = stack.env()
        library = Library.read()
        auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
        with neo4j.GraphDatabase.driver(environment["NEO4J_URI"], auth=auth) as driver:
            empty_graph(driver)
            for family in library.families:
                load_family(driver, family)
        proxies = {
            service: closing.enter_context(Proxy.before(environment[variable], BASE_LATENCY_SECONDS))
            for service, variable in VARIABLES.items()
        }
        database, url = _fresh_database(stack, environment["POSTGRES_URL"], run)
        admin = Engine(url, pool_size=4, application_name="chaos")
        closing.callback(admin.dispose)
        with admin.connect() as connection:
            connection.exec_driver_sql(AUDIT)
        segments, completed, dead = _fresh_queues(stack, environment, run)
        seen_by_workers = {
            name: moved(value, proxies[service].port)
            for service, name in VARIABLES.items()
            for value in [url if name == "POSTGRES_URL" else environment[name]]
        }
        sqs_port = proxies["sqs"].port
        yield Surroundings(
            stack=stack,
            library=library,
            proxies=proxies,
            admin=admin,
            segments=segments,
            completed=completed,
            dead_letters=dead,
            cache_url=environment["DRAGONFLY_URL"],
            neo4j_uri=environment["NEO4J_URI"],
            neo4j_auth=auth,
            database=database,
            environment={
                **base_environment(),
                **environment,
                **seen_by_workers,
                "SQS_QUEUE_URL": moved(segments.url, sqs_port),
                "SQS_COMPLETED_QUEUE_URL": moved(completed.url, sqs_port),
                "SQS_DEAD_LETTER_QUEUE_URL": moved(dead.url, sqs_port),
                **WORKER_SETTINGS,
            },
        )


def _fresh_database(stack: Stack, admin_url: str, run: str) -> tuple[str, str]:
    """Drop what earlier runs left; the new database's name and URL."""
    engine = Engine(admin_url, pool_size=1)
    with engine.connect() as connection:
        names = connection.exec_driver_sql(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %(prefix)s)", {"prefix": f"{PREFIX}_"}
        )
        old = [row[0] for row in names]
    engine.dispose()
    for name in old:
        stack.drop_database(name)
    database = f"{PREFIX}_{run}".replace("-", "_")
    url = stack.make_database(database)
    migrate(url)
    return database, url


def _fresh_queues(stack: Stack, environment: dict[str, str], run: str) -> tuple[Queue, Queue, Queue]:
    client = make_client(
        environment["AWS_REGION"],
        endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    for url in client.list_queues(QueueNamePrefix=f"{PREFIX}-").get("QueueUrls", []):
        client.delete_queue(QueueUrl=url)
    dead = stack.make_queue(f"{PREFIX}-{run}-dead")
    segments = stack.make_queue(
        f"{PREFIX}-{run}",
        dead_letter_queue=dead,
        max_receive_count=MAX_RECEIVE_COUNT,
        visibility_timeout_seconds=VISIBILITY_SECONDS,
    )
    completed = stack.make_queue(f"{PREFIX}-{run}-completed")
    return Queue(client, segments), Queue(client, completed), Queue(client, dead)
