"""The real services for every test that asks for one: a stack of the tests' own, started once and stopped at the end.

Invariant: a test gets a database and queues that nobody else has used, and the graph as it loads it.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator

import neo4j
import pytest
from sqlalchemy import text

from app.sqs.queue import Queue
from devstack.families import Family, empty_graph, load_family, make_constraints
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.services import Queues, base_environment, environment_of, migrate, sqs_client
from tests.support.stacks import SHARED_STACK, reserve

# What a shell starts with `&` ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests' servers live for minutes: compiling for speed would take half of the processor time that they use in all.
os.environ["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"

_numbers = itertools.count()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """PostgreSQL, Neo4j, SQS and a cache, real ones: of this test run's own, or those that several runs share."""
    if shared := os.environ.get(SHARED_STACK):
        yield Stack(name=shared)
        return
    with reserve("test") as name:
        stack = Stack(name=name)
        stack.up()
        # A database a test makes many small files; what fsync protects is a machine's end, which no test survives.
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
            _admin(environment_of(stack)["POSTGRES_URL"], statement)
        yield stack
        stack.down()


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings decide nothing in a test."""
    for name in list(os.environ):
        if name.startswith(
            ("API_", "NEO4J_", "POSTGRES_", "AWS_", "SQS_", "DRAGONFLY_", "CACHE_", "LOG_", "METRICS_", "OTEL_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def template_database(stack: Stack) -> str:
    """A migrated database that others are copied from; its name."""
    stack.drop_database("template_migrated")
    migrate(stack.make_database("template_migrated"))
    return "template_migrated"


@pytest.fixture
def postgres_url(stack: Stack, template_database: str) -> Iterator[str]:
    """A migrated, empty database; its POSTGRES_URL."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    admin = environment_of(stack)["POSTGRES_URL"]
    _admin(admin, f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    yield admin.rsplit("/", 1)[0] + f"/{name}"
    _admin(admin, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def bare_postgres_url(stack: Stack) -> Iterator[str]:
    """A database with nothing in it; its POSTGRES_URL."""
    name = f"b{os.getpid()}_{next(_numbers)}"
    admin = environment_of(stack)["POSTGRES_URL"]
    _admin(admin, f'CREATE DATABASE "{name}"')
    yield admin.rsplit("/", 1)[0] + f"/{name}"
    _admin(admin, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """An engine on the test's own database."""
    engine = Engine(postgres_url, pool_size=12)
    yield engine
    engine.dispose()


@pytest.fixture
def make_queues(stack: Stack) -> Callable[..., Queues]:
    """Makes fresh queues: ``make_queues(max_receive_count=10, visibility_timeout_seconds=30)``."""

    def make(max_receive_count: int | None = 10, visibility_timeout_seconds: int = 30) -> Queues:
        name = f"t{os.getpid()}-{next(_numbers)}"
        client = sqs_client(stack)
        dead = stack.make_queue(f"{name}-dead")
        if max_receive_count is None:
            segments = stack.make_queue(name, visibility_timeout_seconds=visibility_timeout_seconds)
        else:
            segments = stack.make_queue(
                name,
                dead_letter_queue=dead,
                max_receive_count=max_receive_count,
                visibility_timeout_seconds=visibility_timeout_seconds,
            )
        completed = stack.make_queue(f"{name}-completed")
        return Queues(Queue(client, segments), Queue(client, completed), Queue(client, dead))

    return make


@pytest.fixture
def queues(make_queues: Callable[..., Queues]) -> Queues:
    """Fresh queues with the usual limits."""
    return make_queues()


@pytest.fixture(scope="session")
def driver(stack: Stack) -> Iterator[neo4j.Driver]:
    """A driver on the tests' Neo4j."""
    environment = environment_of(stack)
    auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    with neo4j.GraphDatabase.driver(environment["NEO4J_URI"], auth=auth) as driver:
        make_constraints(driver)
        yield driver


@pytest.fixture
def load_graph(driver: neo4j.Driver) -> Callable[[Family], None]:
    """Makes the graph hold this family and nothing else."""

    def load(family: Family) -> None:
        empty_graph(driver)
        load_family(driver, family)

    return load


@pytest.fixture
def environment(stack: Stack, postgres_url: str, queues: Queues) -> dict[str, str]:
    """The whole environment of a worker on the test's own database and queues."""
    return {
        **base_environment(),
        **environment_of(stack),
        "POSTGRES_URL": postgres_url,
        "SQS_QUEUE_URL": queues.segments.url,
        "SQS_COMPLETED_QUEUE_URL": queues.completed.url,
        "SQS_DEAD_LETTER_QUEUE_URL": queues.dead_letters.url,
        "SQS_WAIT_TIME_SECONDS": "1",
    }


def _admin(url: str, statement: str) -> None:
    engine = Engine(url, pool_size=1)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
