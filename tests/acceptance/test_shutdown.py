"""Stopping: idle, busy, hanging, twice; and what another worker then does."""

import signal
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from app.sqs.queue import Outgoing
from devstack.families import Family
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import answers_of, is_over, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.worker import Worker, wait_until

LoadGraph = Callable[[Family], None]


@pytest.fixture
def hanging_graph(stack: Stack) -> Iterator[Callable[[], None]]:
    """Neo4j accepts questions and does not answer them, until the function is called."""
    stack.pause("neo4j")
    yield lambda: stack.resume("neo4j")
    stack.resume("neo4j")
    wait_until(lambda: stack.answers("neo4j"), "Neo4j to answer again")


def statuses(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT status, attempts FROM segment_task"))
        return [(row.status, row.attempts) for row in rows]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_it_exits_when_its_parked_poll_ends(
    number: signal.Signals, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    environment["SQS_WAIT_TIME_SECONDS"] = "2"
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        started = time.monotonic()
        worker.signal(number)
        assert worker.process.wait(30) == 0
        with capsys.disabled():
            print(f"\n{number.name}, idle, a poll of 2 s parked: exit after {time.monotonic() - started:.2f} s")


def test_idle_the_grace_ends_a_poll_that_outlasts_it(environment: dict[str, str]) -> None:
    environment |= {"SQS_WAIT_TIME_SECONDS": "20", "SHUTDOWN_GRACE_SECONDS": "3"}
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        worker.signal(signal.SIGTERM)
        # The poll alone would take 20 s: ending within this limit shows that it was not waited for.
        assert worker.process.wait(15) == 0
        assert "poll is cut" in worker.log()


def test_a_message_sent_to_a_worker_that_is_stopping_is_anothers_at_once(
    environment: dict[str, str], queues: Queues
) -> None:
    """SQS answers the poll that is still parked; cut, it would hide the message for ten minutes."""
    environment |= {"SQS_WAIT_TIME_SECONDS": "20", "SQS_VISIBILITY_TIMEOUT_SECONDS": "600"}
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        queues.segments.send([Outgoing("first")])
        worker.wait_for("is poison")  # so it polls, and the next poll is parked
        wait_until(lambda: queues.dead_letters.facts().messages == 1, "the first message to be gone")
        worker.signal(signal.SIGTERM)
        # One that ends without waiting for its poll is gone here, and SQS goes on with the poll.
        wait_until(lambda: "for a poll to end" in worker.log() or worker.process.poll() is not None, "it to stop")
        queues.segments.send([Outgoing("second")])
        assert worker.process.wait(30) == 0
    assert [message["Body"] for message in queues.segments.receive(1, 5, 30)] == ["second"]


def test_idle_a_second_signal_does_not_wait_for_the_poll(environment: dict[str, str]) -> None:
    environment["SQS_WAIT_TIME_SECONDS"] = "20"
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        worker.signal(signal.SIGINT)
        worker.wait_for("a second signal ends at once")
        worker.signal(signal.SIGINT)
        assert worker.process.wait(15) == 128 + signal.SIGINT


def test_busy_it_finishes_what_is_in_hand(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph, request: pytest.FixtureRequest
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        answer = request.getfixturevalue("hanging_graph")
        queues.segments.send([Outgoing(body) for body in load_job(engine, family, "root-bo", job_id=job)])
        worker.wait_for("Starting BFS traversal")
        worker.signal(signal.SIGTERM)
        worker.wait_for("Stopping")
        answer()
        assert worker.process.wait(60) == 0
        assert "handed back" not in worker.log()
    done = [status for status, _ in statuses(engine)].count("COMPLETED")
    assert done > 0
    with Worker(environment) as other:
        other.wait_for("Consuming")
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert other.stop() == 0
    assert wrong_answers(engine, job, answers_of(questions, "root-bo")) == []


def test_what_hangs_is_given_back_at_the_deadline_and_another_worker_takes_it_at_once(
    environment: dict[str, str],
    engine: Engine,
    queues: Queues,
    load_graph: LoadGraph,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    environment |= {"SHUTDOWN_GRACE_SECONDS": "4", "SQS_VISIBILITY_TIMEOUT_SECONDS": "600"}
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        answer = request.getfixturevalue("hanging_graph")
        queues.segments.send([Outgoing(body) for body in load_job(engine, family, "root-bo", job_id=job)])
        worker.wait_for("Starting BFS traversal")
        started = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
        with capsys.disabled():
            print(f"\nSIGTERM, hanging with 4 s of grace: exit after {time.monotonic() - started:.2f} s")
        assert "messages were handed back" in worker.log()
    assert set(statuses(engine)) == {("QUEUED", 0)}, "given back, no attempt charged"
    answer()
    # The messages would stay hidden for ten minutes had they not been handed back.
    with Worker(environment) as other:
        other.wait_for("Consuming")
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert other.stop() == 0
    assert problems(engine) == []
    assert wrong_answers(engine, job, answers_of(questions, "root-bo")) == []


def test_a_second_signal_exits_now(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: LoadGraph, request: pytest.FixtureRequest
) -> None:
    family, _ = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        request.getfixturevalue("hanging_graph")
        bodies = load_job(engine, family, "root-bo", job_id=str(uuid.uuid4()))
        queues.segments.send([Outgoing(body) for body in bodies])
        worker.wait_for("Starting BFS traversal")
        worker.signal(signal.SIGTERM)
        worker.wait_for("Stopping")
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(15) == 128 + signal.SIGTERM


def test_told_to_stop_while_it_still_waits_for_a_service(environment: dict[str, str]) -> None:
    environment["NEO4J_URI"] = "bolt://127.0.0.1:1"
    with Worker(environment) as worker:
        worker.wait_for("Waiting for Neo4j")
        assert worker.stop() == 0
