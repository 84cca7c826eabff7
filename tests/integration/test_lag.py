"""How far the work is behind, on real tables and a real queue."""

import uuid

import pytest
from sqlalchemy import text

from app.core.lag import Lag
from app.db.lag import PostgresLag
from app.db.outbox import PostgresOutbox
from app.db.repairs import PostgresRepairs
from app.errors import OutageError
from app.sqs.queue import Outgoing, Queue
from app.threads.gate import Gate
from app.worker.lookout import Lookout, WorkAhead
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, fail, make_job
from tests.support.services import Queues


def age(engine: Engine, table: str, column: str, job: str, seconds: int) -> None:
    """Let it have happened so long ago."""
    with engine.connect() as connection:
        connection.execute(
            text(f"UPDATE {table} SET {column} = {column} - :seconds * interval '1 second' WHERE job_id = :job"),
            {"seconds": seconds, "job": job},
        )


def test_nothing_is_behind_where_nothing_is_to_do(engine: Engine) -> None:
    assert PostgresLag(engine).read() == Lag()


def test_the_oldest_job_is_one_that_still_has_work(engine: Engine) -> None:
    jobs = {seconds: make_job(engine, 1) for seconds in (400, 300, 200, 100)}
    for seconds, job in jobs.items():
        age(engine, "root_job", "created_at", job, seconds)
    complete(engine, claimed(engine, jobs[400], ["s00000"]))
    PostgresRepairs(engine).cancel(jobs[300])
    oldest = PostgresLag(engine).read().oldest_job
    assert oldest is not None
    assert (oldest.job_id, oldest.manifestation_id) == (jobs[200], "m")
    assert oldest.age_seconds >= 200
    for seconds in (200, 100):
        fail(engine, claimed(engine, jobs[seconds], ["s00000"]))
    assert PostgresLag(engine).read().oldest_job is None


def test_a_completion_lags_until_its_message_is_sent(engine: Engine) -> None:
    jobs = [make_job(engine, 1) for _ in range(2)]
    announcements = [complete(engine, claimed(engine, job, ["s00000"])).announcements[0] for job in jobs]
    age(engine, "root_job", "updated_at", jobs[0], 50)
    lag = PostgresLag(engine).read()
    assert lag.unsent_completions == 2
    assert lag.unsent_seconds >= 50
    PostgresOutbox(engine).mark_sent(announcements)
    assert PostgresLag(engine).read() == Lag()


def test_a_reopened_job_announces_nothing_yet(engine: Engine) -> None:
    job = make_job(engine, 1)
    complete(engine, claimed(engine, job, ["s00000"]))
    with engine.connect() as connection:
        connection.execute(text("UPDATE segment_task SET status = 'QUEUED'"))
    lag = PostgresLag(engine).read()
    assert lag.unsent_completions == 0
    assert lag.oldest_job is not None


def test_it_holds_what_each_service_tells(engine: Engine, queues: Queues) -> None:
    lookout = Lookout(Gate(), queues.segments, queues.dead_letters, PostgresLag(engine).read)
    assert lookout.look() == WorkAhead(backlog=0, dead_letters=0, lag=Lag())
    queues.segments.send([Outgoing("one"), Outgoing("two")])
    queues.dead_letters.send([Outgoing("gone")])
    assert lookout.look() == WorkAhead(backlog=2, dead_letters=1, lag=Lag())


def test_what_does_not_answer_is_not_known_and_the_rest_is(engine: Engine, queues: Queues) -> None:
    missing = Queue(queues.segments._client, f"{queues.segments.url}-{uuid.uuid4()}")
    assert Lookout(Gate(), missing, None, PostgresLag(engine).read).look() == WorkAhead(lag=Lag())

    def broken() -> Lag:
        raise OutageError("PostgreSQL", "it is gone")

    assert Lookout(Gate(), queues.segments, None, broken).look() == WorkAhead(backlog=0)


def test_what_is_known_to_be_down_is_not_asked(queues: Queues) -> None:
    def never() -> Lag:
        pytest.fail("PostgreSQL was asked")

    gate = Gate()
    gate.close("PostgreSQL", "it is gone")
    assert Lookout(gate, queues.segments, None, never).look() == WorkAhead(backlog=0)
