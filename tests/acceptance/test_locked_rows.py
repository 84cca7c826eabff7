"""A row that somebody keeps locked, an operator or a producer, harms nobody else, and is charged to nobody."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from devstack.families import Family
from devstack.stack import Stack
from tests.support import killer_job
from tests.support.endstate import is_over
from tests.support.engine import Engine
from tests.support.killer_job import KillerJob
from tests.support.services import Queues
from tests.support.worker import Worker, wait_until

VISIBILITY_SECONDS = 5
LOCKED_SECONDS = 12.0
"""Longer than a claim or a settling waits for a lock, 5 s, and then a lease."""
LIMIT_SECONDS = 150
LOCKS = {
    "job": "SELECT 1 FROM root_job WHERE job_id = CAST(:job AS uuid) FOR UPDATE",
    "segment": "SELECT 1 FROM segment_task WHERE job_id = CAST(:job AS uuid) AND segment_id = 'good-7' FOR UPDATE",
    "insert": "INSERT INTO segment_task (task_id, job_id, segment_id, status)"
    " VALUES (gen_random_uuid(), CAST(:job AS uuid), 'one-more', 'QUEUED')",
}


@pytest.fixture
def strict(environment: dict[str, str], load_graph: Callable[[Family], None]) -> dict[str, str]:
    """A worker's environment in which one attempt that is charged wrongly shows as a FAILED segment."""
    load_graph(killer_job.example())
    return environment | {"SQS_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS), "MAX_ATTEMPTS": "1"}


@pytest.fixture
def awake(stack: Stack) -> Iterator[Stack]:
    """The stack, with nothing paused afterwards."""
    yield stack
    stack.up()


@contextmanager
def open_transaction(engine: Engine, kind: str, job: KillerJob) -> Iterator[None]:
    """Somebody else's transaction that has begun with the statement `kind`; rolled back at the end."""
    operator = Engine(engine.url.render_as_string(hide_password=False), pool_size=1, application_name="operator")
    try:
        with operator.connect() as connection:
            connection.exec_driver_sql("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.execute(text(LOCKS[kind]), {"job": job.job_id})
            yield
            connection.exec_driver_sql("ROLLBACK")
    finally:
        operator.dispose()


def count(engine: Engine, job: KillerJob, condition: str) -> int:
    """Segments of the job that are so."""
    with engine.connect() as connection:
        sql = text(f"SELECT count(*) FROM segment_task WHERE job_id = :job AND {condition}")
        return int(connection.execute(sql, {"job": job.job_id}).scalar_one())


@pytest.mark.timeout(3 * LIMIT_SECONDS)
@pytest.mark.parametrize("when", ["before it is claimed", "while it is walked"])
@pytest.mark.parametrize("kind", ["job", "segment"])
def test_an_operator_s_open_transaction_harms_nobody_else(
    kind: str, when: str, strict: dict[str, str], engine: Engine, queues: Queues, awake: Stack
) -> None:
    locked, other = killer_job.insert(engine, 30), killer_job.insert(engine, 300)
    left = 30 if kind == "job" else 1
    with Worker(strict) as worker:
        worker.wait_for("Consuming")
        if when == "while it is walked":
            awake.pause("neo4j")
            killer_job.send(queues.segments, locked)
            wait_until(lambda: count(engine, locked, "status = 'IN_PROGRESS'") == 30, "the whole job to be claimed")
        with open_transaction(engine, kind, locked):
            began = time.monotonic()
            if when == "while it is walked":
                awake.resume("neo4j")
            else:
                killer_job.send(queues.segments, locked)
            killer_job.send(queues.segments, other)
            wait_until(lambda: is_over(engine, other.job_id), "the other job to end meanwhile", LIMIT_SECONDS)
            wait_until(lambda: time.monotonic() - began > LOCKED_SECONDS, "the lock to have been held for long")
            wait_until(
                lambda: count(engine, locked, "status <> 'COMPLETED'") <= left,
                "the segments beside the locked one to end",
                LIMIT_SECONDS,
            )
        wait_until(lambda: is_over(engine, locked.job_id), "the locked job to end", LIMIT_SECONDS)
        wait_until(lambda: queues.segments.facts().messages == 0, "every message to be dealt with", LIMIT_SECONDS)
        assert worker.stop() == 0
    assert [*killer_job.judge(engine, locked, 1).problems, *killer_job.judge(engine, other, 1).problems] == []
    assert queues.dead_letters.facts().messages == 0


def test_a_producer_s_open_insert_slows_nothing(strict: dict[str, str], engine: Engine, queues: Queues) -> None:
    job = killer_job.insert(engine, 30)
    with Worker(strict) as worker, open_transaction(engine, "insert", job):
        worker.wait_for("Consuming")
        killer_job.send(queues.segments, job)
        wait_until(lambda: is_over(engine, job.job_id), "the job to end while the INSERT is open")
        assert worker.stop() == 0
        assert "timeout" not in worker.log()
    assert killer_job.judge(engine, job, 1).problems == ()
