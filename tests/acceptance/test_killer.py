"""What ends every process that touches it costs itself alone, and restarts by SIGKILL cost nobody anything."""

import json
import random
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text

from app.sqs.queue import Queue
from devstack.families import Family
from tests.support import killer_job
from tests.support.endstate import completions, is_over
from tests.support.engine import Engine
from tests.support.services import Queues
from tests.support.supervisor import Supervisor
from tests.support.worker import wait_until

WORKERS = 2
MAX_ATTEMPTS = 3
"""Fewer than the five of the settings, to be quicker: each costs the killer the five seconds of a visibility."""
RESTARTS = 10
LIMIT_SECONDS = 180


@pytest.fixture
def impatient(environment: dict[str, str], load_graph: Callable[[Family], None]) -> dict[str, str]:
    """A worker's environment in which what a dead one held comes back after five seconds."""
    load_graph(killer_job.example())
    return environment | {"SQS_VISIBILITY_TIMEOUT_SECONDS": "5", "MAX_ATTEMPTS": str(MAX_ATTEMPTS)}


@pytest.mark.timeout(2 * LIMIT_SECONDS + 60)
def test_a_killer_among_499_fails_itself_alone(impatient: dict[str, str], engine: Engine, queues: Queues) -> None:
    job = killer_job.make(engine, queues.segments, 499, killers_at=[250])
    with Supervisor(WORKERS, impatient, "-m", "tests.support.killer") as workers:
        _wait_for_the_end(engine, queues, job)
        deaths = len(workers.ended)
        workers.stop()
    found = killer_job.judge(engine, job, MAX_ATTEMPTS)
    assert found.problems == ()
    assert found.statuses == {"COMPLETED": 499, "FAILED": 1}
    assert found.attempts == {1: 499}, "no good segment was charged for its neighbour"
    assert deaths >= MAX_ATTEMPTS, "each attempt of the killer cost a worker"
    assert segments_of(queues.dead_letters) == job.killers
    assert not completions(queues.completed)


@pytest.mark.timeout(3 * LIMIT_SECONDS + 60)
def test_ten_restarts_of_all_workers_by_sigkill_fail_nothing(
    impatient: dict[str, str], engine: Engine, queues: Queues
) -> None:
    """So few segments that the later restarts meet again what the first ones have met."""
    moments = random.Random(RESTARTS)
    job = killer_job.make(engine, queues.segments, 600)
    with Supervisor(WORKERS, impatient) as workers:
        for _ in range(RESTARTS):
            workers.wait_until_all_consume()
            wait_until(lambda: in_hand(engine) or is_over(engine, job.job_id), "work to be in hand")
            time.sleep(moments.uniform(0.0, 0.2))
            workers.kill_all()
        _wait_for_the_end(engine, queues, job)
        workers.stop()
    found = killer_job.judge(engine, job, MAX_ATTEMPTS)
    assert found.problems == ()
    assert found.statuses == {"COMPLETED": 600}
    assert segments_of(queues.dead_letters) == set()
    assert completions(queues.completed).keys() == {job.job_id}


def in_hand(engine: Engine) -> int:
    """Segments that somebody works on, as far as the leases tell."""
    return engine_scalar(
        engine,
        "SELECT count(*) FROM segment_task WHERE status = 'IN_PROGRESS' AND lease_expires_at > clock_timestamp()",
    )


def engine_scalar(engine: Engine, sql: str) -> int:
    """The one number that a query of ours answers."""
    with engine.connect() as connection:
        return int(connection.execute(text(sql)).scalar_one())


def segments_of(queue: Queue) -> set[str]:
    """The segments that the waiting messages ask for; takes them off the queue."""
    found: set[str] = set()
    while messages := queue.receive(10, 1, 60):
        found |= {json.loads(message["Body"])["segment_id"] for message in messages}
        queue.delete([message["ReceiptHandle"] for message in messages])
    return found


def _wait_for_the_end(engine: Engine, queues: Queues, job: killer_job.KillerJob) -> None:
    wait_until(lambda: is_over(engine, job.job_id), "the job to end", LIMIT_SECONDS)
    wait_until(lambda: queues.segments.facts().messages == 0, "every message to be dealt with", LIMIT_SECONDS)
    wait_until(
        lambda: not engine_scalar(engine, "SELECT count(*) FROM completion_outbox WHERE sent_at IS NULL"),
        "the completion to be sent",
        LIMIT_SECONDS,
    )
