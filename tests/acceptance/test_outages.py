"""Outages pause, they do not burn: a database dies under a worker with work waiting, and comes back."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from app.sqs.queue import Outgoing, Queue
from app.worker.wiring import RECEIVES_A_BATCH
from devstack.families import Family
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import answers_of, is_over, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.worker import Worker, wait_until

LANES, BATCH = 2, 10 * RECEIVES_A_BATCH


@pytest.fixture
def mended(stack: Stack) -> Iterator[Stack]:
    """The stack, whole again afterwards."""
    yield stack
    stack.up()


def segments_of_one_text(count: int) -> Family:
    return Family.from_graph(
        {
            "manifestations": ["M"],
            "annotations": [{"id": "M.s", "manifestation": "M", "type": "segmentation"}],
            "segments": [{"id": f"s{n}", "annotation": "M.s", "start": n, "end": n + 1} for n in range(count)],
            "aligned_annotations": [],
            "aligned_segments": [],
        }
    )


def receive_counts(queue: Queue, count: int) -> Counter[int]:
    """How often each waiting message has been received, ours not counted; the messages are put back."""
    found: dict[str, tuple[str, int]] = {}

    def all_seen() -> bool:
        for message in queue.receive(10, 1, 300):
            receives = int(message["Attributes"]["ApproximateReceiveCount"]) - 1
            found[message["MessageId"]] = (message["ReceiptHandle"], receives)
        return len(found) >= count

    wait_until(all_seen, f"{count} messages", 120)
    queue.hide([(handle, 0) for handle, _ in found.values()])
    return Counter(receives for _, receives in found.values())


@pytest.mark.parametrize(("service", "name"), [("postgres", "PostgreSQL"), ("neo4j", "Neo4j")])
def test_a_thousand_messages_gain_at_most_the_receives_in_flight(
    service: str,
    name: str,
    environment: dict[str, str],
    engine: Engine,
    queues: Queues,
    load_graph: Callable[[Family], None],
    mended: Stack,
) -> None:
    family = segments_of_one_text(1_000)
    load_graph(family)
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, "M", job_id=job)
    environment |= {"SQS_VISIBILITY_TIMEOUT_SECONDS": "5", "SQS_BATCHES_IN_HAND": str(LANES)}
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        mended.kill(service)
        queues.segments.send([Outgoing(body) for body in bodies])
        worker.wait_for(f"{name} is down, receiving is paused")
        # Several probes fail meanwhile; with polling going on, each of them would cost a receive of a batch.
        gained = receive_counts(queues.segments, len(bodies))
        assert sum(receives * messages for receives, messages in gained.items()) <= LANES * BATCH
        mended.start(service)
        wait_until(lambda: _ended(engine, job), "the job to end", 120)
        assert worker.stop() == 0
        assert worker.log().count(f"{name} is down") == 1
        assert worker.log().count(f"{name} is back") == 1
    with engine.connect() as connection:
        attempts = connection.execute(text("SELECT max(attempts) FROM segment_task")).scalar_one()
    assert attempts == 1, "no attempt was charged for the outage"
    assert problems(engine) == []
    assert wrong_answers(engine, job, {f"s{n}": [] for n in range(1_000)}) == []


def test_sqs_goes_and_comes_back(
    environment: dict[str, str], engine: Engine, queues: Queues, load_graph: Callable[[Family], None], mended: Stack
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    bodies = load_job(engine, family, "alone", job_id=job)
    # The poll that was parked when SQS stopped may be answered when it goes on; its messages come back after this.
    environment["SQS_VISIBILITY_TIMEOUT_SECONDS"] = "5"
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        mended.pause("sqs")
        worker.wait_for("SQS is down, receiving is paused")
        mended.resume("sqs")
        worker.wait_for("SQS is back")
        queues.segments.send([Outgoing(body) for body in bodies])
        wait_until(lambda: is_over(engine, job), "the job to end")
        assert worker.stop() == 0
    assert wrong_answers(engine, job, answers_of(questions, "alone")) == []


def _ended(engine: Engine, job: str) -> bool:
    engine.dispose()  # its connections may be those of the server that was killed
    fresh = Engine(engine.url.render_as_string(hide_password=False), pool_size=1)
    try:
        return is_over(fresh, job)
    finally:
        fresh.dispose()
