"""Builds what the doctor looks at, service by service, each from the settings that it alone needs.

Invariant: whatever is wrong with one of them, all others are looked at.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from app.caching.redis_store import RedisStore
from app.caching.store import StoreError
from app.config import aws_access, find_complaints, load_settings
from app.db.postgres import Database
from app.errors import ConfigurationError, ProcessorError, RefusedError, SchemaError
from app.jobs.findings import MIGRATE, Finding, look_at_input_queue, look_at_other_queue, look_at_postgres
from app.jobs.wiring import COMPLETED_QUEUE, DEAD_LETTERS, GRAPH, SEGMENTS_QUEUE, STORE
from app.neo4j_database import Neo4JDatabase
from app.neo4j_database_validator import missing_constraints, tell_missing_constraint, validate
from app.sqs.queue import make_queue

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "alembic"
CONSTRAINT: Final = "CREATE CONSTRAINT FOR (n:{label}) REQUIRE n.{name} IS UNIQUE"
"""For an operator to run, never run here."""
WHOLE_GRAPH: Final = "its owner mends it; all of it: python -m app.neo4j_database_validator --full"
SET: Final = "set it in the environment or in .env; env.example explains it"


def examine() -> Iterator[Finding]:
    """Everything, in the order in which it is best mended."""
    complaints = find_complaints()
    for complaint in complaints:
        name, _, what = complaint.partition(" ")
        yield Finding(name, what, SET)
    if not complaints:
        yield Finding("settings", "all that must be set is set, and makes sense")
    for about, look in (
        ("PostgreSQL", _postgres),
        ("Neo4j", _graph),
        ("SQS_QUEUE_URL", _input_queue),
        ("SQS_COMPLETED_QUEUE_URL", _completed_queue),
        ("SQS_DEAD_LETTER_QUEUE_URL", _dead_letters),
        ("cache", _cache),
    ):
        yield from _guarded(about, look)


def _guarded(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What it finds; what it raises is a finding, too."""
    try:
        yield from look()
    except ConfigurationError as error:
        if str(error).startswith("The settings are not usable"):
            yield Finding(about, "could not be looked at, its settings are wrong", "mend the settings named above")
        else:
            yield Finding(about, str(error), f"{_setting_of(about)}; address, name, password and rights must fit")
    except SchemaError as error:
        yield Finding(about, str(error), MIGRATE)
    except RefusedError as error:
        yield Finding(about, str(error), f"{_setting_of(about)}: user, password and database; or grant the right")
    except ProcessorError as error:
        if "does not answer" not in str(error):
            yield Finding(about, str(error), "mend what it says, and look again")
            return
        yield Finding(about, str(error), f"start it, or {_setting_of(about)}; the network between must let us through")


def _setting_of(about: str) -> str:
    names = {
        "PostgreSQL": "POSTGRES_URL",
        "Neo4j": "NEO4J_URI, NEO4J_USER and NEO4J_PASSWORD",
        "cache": "DRAGONFLY_URL",
    }
    return f"correct {names.get(about, f'{about} or AWS_ENDPOINT_URL_SQS')}"


def _postgres() -> Iterator[Finding]:
    database = Database(load_settings(*STORE).postgres_url, pool_size=1, application_name="segment-doctor")
    try:
        yield from look_at_postgres(database, _head())
    finally:
        database.dispose()


def _head() -> str | None:
    """The newest migration that this code comes with."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _graph() -> Iterator[Finding]:
    settings = load_settings(*GRAPH)
    graph = Neo4JDatabase(settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password, settings.neo4j_database)
    with closing(graph):
        graph.ping()
        yield Finding("Neo4j", "answers and lets us read")
        missing = missing_constraints(graph)
        for label, name in missing:
            cure = CONSTRAINT.format(label=label, name=name)
            yield Finding("Neo4j", f"there is no uniqueness constraint on {label}.{name}", f"in Neo4j: {cure}")
        told = {tell_missing_constraint(*each) for each in missing}
        others = [each for each in validate(graph, full=False) if each not in told]
        yield from (Finding("Neo4j", each, WHOLE_GRAPH) for each in others)
        if not missing and not others:
            yield Finding("Neo4j", "the constraints are there, and nothing is wrong with a sample of the graph")


def _input_queue() -> Iterator[Finding]:
    settings = load_settings(*SEGMENTS_QUEUE)
    queue = make_queue(settings.sqs_queue_url, **aws_access(settings))
    wanted = load_settings("SQS_VISIBILITY_TIMEOUT_SECONDS").sqs_visibility_timeout_seconds
    dead_letters = load_settings("SQS_DEAD_LETTER_QUEUE_URL").sqs_dead_letter_queue_url
    yield from look_at_input_queue(queue, wanted, dead_letters)


def _completed_queue() -> Iterator[Finding]:
    settings = load_settings(*COMPLETED_QUEUE)
    queue = make_queue(settings.sqs_completed_queue_url, **aws_access(settings))
    yield from look_at_other_queue("SQS_COMPLETED_QUEUE_URL", queue)


def _dead_letters() -> Iterator[Finding]:
    settings = load_settings(*DEAD_LETTERS)
    about, url = "SQS_DEAD_LETTER_QUEUE_URL", settings.sqs_dead_letter_queue_url
    if url is None:
        yield Finding(about, "is not set: the input queue's redrive policy alone decides, and tells no reason")
        return
    yield from look_at_other_queue(about, make_queue(url, **aws_access(settings)))


def _cache() -> Iterator[Finding]:
    url = load_settings("DRAGONFLY_URL").dragonfly_url
    if url is None:
        yield Finding("cache", "DRAGONFLY_URL is not set: everything works, only slower")
        return
    try:
        with closing(RedisStore(url)) as store:
            store.get_many(["doctor"])
    except StoreError as error:
        cure = "start it, or correct DRAGONFLY_URL, or take that away; everything works without, only slower"
        yield Finding("cache", f"does not answer as it should: {error}", cure)
        return
    yield Finding("cache", "answers")
