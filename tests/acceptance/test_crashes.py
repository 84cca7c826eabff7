"""A worker dies between any two steps of a segment's road, and another one finishes to the same end state."""

import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import text

from app.sqs.queue import Outgoing
from devstack.families import Family
from tests.support import crash_at
from tests.support.answers import EXAMPLES, read_example
from tests.support.endstate import answers_of, completions, is_over, load_job, problems, wrong_answers
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.worker import Worker, wait_until

VISIBILITY_SECONDS = "5"
# Completion messages there may be: a crash between sending one and noting it repeats it. The relay works beside
# the lanes, so a crash after a deletion may or may not fall just there.
REPEATS = {"completion-sent": {2}, "deleted": {1, 2}}


@pytest.mark.parametrize("boundary", crash_at.BOUNDARIES)
def test_another_worker_finishes(
    boundary: str,
    environment: dict[str, str],
    engine: Engine,
    queues: Queues,
    load_graph: Callable[[Family], None],
) -> None:
    family, questions = read_example(EXAMPLES / "small_family.json")
    load_graph(family)
    job = str(uuid.uuid4())
    environment["SQS_VISIBILITY_TIMEOUT_SECONDS"] = VISIBILITY_SECONDS
    queues.segments.send([Outgoing(body) for body in load_job(engine, family, "root-bo", job_id=job)])

    with Worker(environment, "-m", "tests.support.crash_at", boundary) as victim:
        assert victim.process.wait(60) == crash_at.EXIT_CRASHED, victim.log()
    _forget_the_outbox_lease(engine)
    with Worker(environment) as worker:
        worker.wait_for("Consuming")
        wait_until(lambda: is_over(engine, job), "the job to end")
        wait_until(lambda: queues.segments.facts().messages == 0, "every message to be deleted")
        wait_until(lambda: _all_sent(engine), "the completion to be sent", 90)
        assert worker.stop() == 0

    assert problems(engine) == []
    assert wrong_answers(engine, job, answers_of(questions, "root-bo")) == []
    sent = completions(queues.completed)
    assert set(sent) == {job}
    assert sent[job] in REPEATS.get(boundary, {1})
    assert queues.dead_letters.facts().messages == 0


def _forget_the_outbox_lease(engine: Engine) -> None:
    """As if the dead finisher's 30 s had passed."""
    with engine.connect() as connection:
        connection.execute(text("UPDATE completion_outbox SET leased_until = now() WHERE sent_at IS NULL"))


def _all_sent(engine: Engine) -> bool:
    with engine.connect() as connection:
        return not connection.execute(text("SELECT 1 FROM completion_outbox WHERE sent_at IS NULL")).all()
