"""`doctor` on a healthy stack, and with each fault made in turn: named, with its cure, and nothing else left out."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import neo4j
import pytest
from sqlalchemy import text

from devstack.families import SMALL_FAMILY_PATH, Family, make_constraints
from devstack.stack import Stack
from tests.support.commands import Command
from tests.support.engine import Engine
from tests.support.services import Queues, migrate

CLOSED = "127.0.0.1:1"
ABOUT = {"PostgreSQL", "Neo4j", "SQS_QUEUE_URL", "SQS_COMPLETED_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL", "cache"}


@pytest.fixture
def queues(make_queues: Callable[..., Queues]) -> Queues:
    """As they should be."""
    return make_queues(visibility_timeout_seconds=60)


@pytest.fixture(autouse=True)
def graph(load_graph: Callable[[Family], None]) -> None:
    """A sound one."""
    load_graph(Family.from_json(SMALL_FAMILY_PATH))


type Doctor = Callable[[], list[tuple[str, str, str]]]


@pytest.fixture
def doctor(command: Command) -> Doctor:
    """What is wrong: (about, finding, cure) each; everything must have been looked at, and the exit code fit."""

    def examine() -> list[tuple[str, str, str]]:
        ran = command("doctor", "--json")
        findings = [json.loads(line) for line in ran.out.splitlines()]
        assert {finding["about"] for finding in findings} >= ABOUT
        wrong = [(each["about"], each["finding"], each["cure"]) for each in findings if each["is_wrong"]]
        assert (ran.code, ran.err) == (1 if wrong else 0, "")
        assert all((each["cure"] is not None) == each["is_wrong"] for each in findings)
        return wrong

    return examine


def test_a_healthy_stack_is_said_to_be_healthy(command: Command, doctor: Doctor) -> None:
    assert doctor() == []
    ran = command("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("Everything is as it should be.\n")
    assert all(line.startswith("ok ") for line in ran.out.splitlines()[:-1])


@pytest.mark.parametrize(
    ("variable", "value", "abouts"),
    [
        ("POSTGRES_URL", f"postgresql://u:hidden@{CLOSED}/d", {"PostgreSQL"}),
        ("NEO4J_URI", f"bolt://{CLOSED}", {"Neo4j"}),
        ("AWS_ENDPOINT_URL_SQS", f"http://{CLOSED}", {each for each in ABOUT if each.startswith("SQS")}),
        ("DRAGONFLY_URL", f"redis://:hidden@{CLOSED}", {"cache"}),
    ],
)
def test_a_service_that_is_down_is_a_finding_and_the_others_are_looked_at(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, abouts: set[str]
) -> None:
    monkeypatch.setenv(variable, value)
    wrong = doctor()
    assert {about for about, _, _ in wrong} == abouts
    for _, finding, cure in wrong:
        assert "does not answer" in finding
        assert "start it, or correct" in cure
        assert variable in cure
        assert "hidden" not in finding + cure


def test_a_wrong_password_is_told_without_it(
    doctor: Doctor, command: Command, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO4J_PASSWORD", "not-this-one")
    parts = urlsplit(environment["POSTGRES_URL"])
    monkeypatch.setenv(
        "POSTGRES_URL", urlunsplit(parts._replace(netloc=f"nobody-here:not-this-one@{parts.hostname}:{parts.port}"))
    )
    postgres, graph = doctor()
    assert postgres[0] == "PostgreSQL"
    assert "correct POSTGRES_URL: user, password and database" in postgres[2]
    assert graph[0] == "Neo4j"
    assert "Unauthorized" in graph[1]
    assert "correct NEO4J_URI, NEO4J_USER and NEO4J_PASSWORD" in graph[2]
    assert "not-this-one" not in command("doctor").out


def test_a_missing_redrive_policy(
    doctor: Doctor, make_queues: Callable[..., Queues], monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = make_queues(max_receive_count=None, visibility_timeout_seconds=60)
    monkeypatch.setenv("SQS_QUEUE_URL", queues.segments.url)
    ((about, finding, cure),) = doctor()
    assert (about, finding.partition(":")[0]) == ("SQS_QUEUE_URL", f"{queues.segments.name} has no redrive policy")
    assert cure == "set RedrivePolicy of the queue: the ARN of a dead-letter queue, maxReceiveCount 10"


def test_a_visibility_that_is_too_short(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_VISIBILITY_TIMEOUT_SECONDS", "61")
    ((about, finding, cure),) = doctor()
    assert about == "SQS_QUEUE_URL"
    assert "is 60 s, less than SQS_VISIBILITY_TIMEOUT_SECONDS (61)" in finding
    assert cure == "set VisibilityTimeout of the queue to 61"


def test_a_policy_that_gives_up_soon_and_moves_elsewhere(
    doctor: Doctor, make_queues: Callable[..., Queues], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_queues(max_receive_count=3, visibility_timeout_seconds=60)
    monkeypatch.setenv("SQS_QUEUE_URL", other.segments.url)
    soon, elsewhere = doctor()
    assert "gives a message up after 3 receives" in soon[1]
    assert soon[2] == "set maxReceiveCount in RedrivePolicy to 10 or more"
    assert other.dead_letters.name in elsewhere[1]
    assert elsewhere[2] == "name the same queue in both"


def test_a_fifo_input_queue_and_one_that_is_not_there(
    doctor: Doctor, stack: Stack, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = stack.make_queue(
        "doctor", dead_letter_queue=queues.dead_letters.url, visibility_timeout_seconds=60, fifo=True
    )
    monkeypatch.setenv("SQS_QUEUE_URL", fifo)
    monkeypatch.setenv("SQS_COMPLETED_QUEUE_URL", queues.completed.url + "-gone")
    input_queue, completed = doctor()
    assert input_queue[1].startswith("doctor.fifo is a FIFO queue")
    assert input_queue[2] == "name a standard queue"
    assert completed[:2] == (
        "SQS_COMPLETED_QUEUE_URL",
        f"the queue '{queues.completed.name}-gone' does not exist (QueueDoesNotExist)",
    )
    assert "correct SQS_COMPLETED_QUEUE_URL" in completed[2]


def test_migrations_that_are_behind(doctor: Doctor, environment: dict[str, str]) -> None:
    assert migrate(environment["POSTGRES_URL"], "downgrade", "0001").returncode == 0
    ((about, finding, cure),) = doctor()
    assert (about, cure) == ("PostgreSQL", "run: alembic upgrade head")
    assert finding.startswith("the migrations' level is 0001, this code needs 0")


def test_migrations_that_were_never_run(
    doctor: Doctor, bare_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", bare_postgres_url)
    ((_, finding, cure),) = doctor()
    assert finding.startswith("the migrations' level is none at all")
    assert cure == "run: alembic upgrade head"


@pytest.fixture
def limited_url(engine: Engine, postgres_url: str) -> Iterator[str]:
    """Of a user who may look at the tables, and write to one of them only."""
    name = "doctor_limited"
    with engine.connect() as connection:
        connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x'"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"))
        connection.execute(text(f"GRANT INSERT, UPDATE ON segment_task TO {name}"))
    parts = urlsplit(postgres_url)
    yield urlunsplit(parts._replace(netloc=f"{name}:x@{parts.hostname}:{parts.port}"))
    with engine.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {name}; DROP ROLE {name}"))


def test_rights_that_are_missing(doctor: Doctor, limited_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", limited_url)
    assert [(finding, cure) for _, finding, cure in doctor()] == [
        (
            f"no right to {right} on completion_outbox, root_job",
            f"GRANT {right} ON completion_outbox, root_job TO the user of POSTGRES_URL",
        )
        for right in ("INSERT", "UPDATE")
    ]


def test_a_database_that_only_reads(doctor: Doctor, environment: dict[str, str], engine: Engine) -> None:
    name = urlsplit(environment["POSTGRES_URL"]).path[1:]
    with engine.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    ((_, finding, cure),) = doctor()
    assert "it only reads" in finding
    assert cure == "mend what it says, and look again"


def test_a_constraint_that_is_missing(doctor: Doctor, driver: neo4j.Driver) -> None:
    ((name,),) = driver.execute_query(
        "SHOW CONSTRAINTS YIELD name, labelsOrTypes WHERE labelsOrTypes = ['Segment'] RETURN name"
    ).records
    driver.execute_query(f"DROP CONSTRAINT {name}")
    try:
        wrong = doctor()
    finally:
        make_constraints(driver)
    assert wrong == [
        (
            "Neo4j",
            "there is no uniqueness constraint on Segment.id",
            "in Neo4j: CREATE CONSTRAINT FOR (n:Segment) REQUIRE n.id IS UNIQUE",
        )
    ]


def test_a_graph_that_is_damaged(doctor: Doctor, driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE (:Manifestation {id: 17})")
    ((about, finding, cure),) = doctor()
    assert about == "Neo4j"
    assert finding.startswith("1 manifestations have an id that is not text")
    assert "app.neo4j_database_validator --full" in cure


def test_settings_are_named_all_at_once_and_the_rest_is_looked_at(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTGRES_URL")
    monkeypatch.setenv("SQS_BATCH_SIZE", "11")
    wrong = doctor()
    assert {(about, finding) for about, finding, _ in wrong} == {
        ("POSTGRES_URL", "is not set"),
        ("SQS_BATCH_SIZE", "should be less than or equal to 10"),
        ("PostgreSQL", "could not be looked at, its settings are wrong"),
    }


def test_what_is_optional_may_be_missing(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRAGONFLY_URL")
    monkeypatch.delenv("SQS_DEAD_LETTER_QUEUE_URL")
    assert doctor() == []


def test_a_person_reads_finding_and_cure_on_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS_VISIBILITY_TIMEOUT_SECONDS", "61")
    ran = command("doctor")
    assert ran.code == 1
    (line,) = [line for line in ran.out.splitlines() if line.startswith("WRONG")]
    assert line.endswith(" -> set VisibilityTimeout of the queue to 61")
    assert ran.out.splitlines()[-1] == "1 to mend."


def test_looking_changes_nothing(doctor: Doctor, queues: Queues, postgres_url: str) -> None:
    engine = Engine(postgres_url, pool_size=1)
    counts = "SELECT (SELECT count(*) FROM root_job), (SELECT count(*) FROM segment_task)"
    doctor()
    with engine.connect() as connection:
        assert tuple(connection.execute(text(counts)).one()) == (0, 0)
    engine.dispose()
    assert queues.segments.facts().messages == queues.dead_letters.facts().messages == 0
