"""What the tables do by themselves for producers and operators who know only docs/formats.md."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.core.endings import Completed, Ending, Failed, Postponed
from app.core.jobs import JOB_STATUSES, SEGMENT_STATUSES
from app.core.segments import Claimed, SegmentRequest
from app.db.claims import PostgresClaims
from app.db.postgres import run
from app.db.results import PostgresResults
from devstack.stack import Stack
from tests.support.asking import ask
from tests.support.endstate import problems
from tests.support.engine import Engine
from tests.support.tables import Tables, migrated_database
from tests.support.worker import wait_until

OPERATORS_QUERY = (
    "SELECT job_id, manifestation_id, completed_segments, total_segments, status, updated_at FROM root_job"
    " WHERE status = 'IN_PROGRESS' ORDER BY updated_at DESC;"
)
REQUEUE = "UPDATE segment_task SET status = 'QUEUED' WHERE job_id = :job AND segment_id = 'a'"


@pytest.fixture(scope="module")
def engine(stack: Stack, template_database: str) -> Iterator[Engine]:
    with migrated_database(stack, template_database, "published_tables") as engine:
        yield engine


@pytest.fixture
def tables(engine: Engine) -> Tables:
    tables = Tables(engine)
    tables.empty()
    return tables


def sql(engine: Engine, statement: str, **parameters: Any) -> list[Any]:
    """What somebody types by hand, in a transaction of his own."""
    with engine.connect() as connection:
        result = connection.execute(text(statement), parameters)
        return list(result.all()) if result.returns_rows else []


def claim(engine: Engine, job_id: str, *names: str) -> list[Claimed]:
    requests = [SegmentRequest(job_id, "M", name, 0, 1, sent_at_ms=0) for name in names]
    answers = ask(PostgresClaims(engine, "worker", 5), requests, 1_000.0)
    return [answer for answer in answers if isinstance(answer, Claimed)]


def end(engine: Engine, job_id: str, name: str, make_ending: Callable[[Claimed], Ending]) -> None:
    PostgresResults(engine).settle([make_ending(each) for each in claim(engine, job_id, name)])


def test_a_foreign_producer_gives_the_published_columns_only(engine: Engine, tables: Tables) -> None:
    job_id, task_id = str(uuid.uuid4()), str(uuid.uuid4())
    sql(
        engine,
        "INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)"
        " VALUES (:job, 'M', 1, 0, 'QUEUED')",
        job=job_id,
    )
    sql(
        engine,
        "INSERT INTO segment_task (task_id, job_id, segment_id, status) VALUES (:task, :job, 'a', 'QUEUED')",
        task=task_id,
        job=job_id,
    )
    (claimed,) = claim(engine, job_id, "a")
    assert claimed.task_id == task_id
    PostgresResults(engine).settle([Completed(claimed, "[]")])
    assert tables.job(job_id).status == "COMPLETED"
    assert problems(engine) == []


def test_timestamps_carry_a_time_zone(engine: Engine) -> None:
    rows = sql(
        engine,
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'timestamp without time zone'",
    )
    assert rows == []


def test_the_operators_query_runs(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job("a")
    claim(engine, job_id, "a")
    tables.add_job("a")
    (row,) = sql(engine, OPERATORS_QUERY)
    assert (str(row.job_id), row.manifestation_id, row.completed_segments, row.total_segments, row.status) == (
        *(job_id, "M", 0, 1),
        "IN_PROGRESS",
    )
    assert row.updated_at.tzinfo is not None


def assert_clean(tables: Tables, job_id: str, attempts: int) -> None:
    """QUEUED, with nothing left of the run before, and claimable by anybody."""
    row = tables.segment(job_id, "a")
    assert (row.status, row.attempts) == ("QUEUED", attempts)
    assert (row.claim_token, row.lease_expires_at, row.retry_at) == (None, None, None)
    assert (row.result_json, row.error_message if attempts == 0 else None, row.failed_at) == (None, None, None)


def test_requeueing_a_running_segment_takes_it_from_its_worker(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job("a")
    (running,) = claim(engine, job_id, "a")
    sql(engine, REQUEUE, job=job_id)
    assert_clean(tables, job_id, attempts=1)
    assert sql(engine, "SELECT claimed_by FROM segment_task") == [(None,)]
    assert PostgresClaims(engine, "worker", 5).renew([running], 1_000.0) == set()
    assert PostgresResults(engine).settle([Completed(running, "[]")]).task_ids == set()
    assert len(claim(engine, job_id, "a")) == 1
    assert problems(engine) == []


def test_requeueing_a_retrying_segment_ends_its_wait(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job("a")
    end(engine, job_id, "a", lambda claim: Postponed(claim, "slow", 500.0))
    assert claim(engine, job_id, "a") == []
    sql(engine, REQUEUE, job=job_id)
    assert_clean(tables, job_id, attempts=1)
    assert len(claim(engine, job_id, "a")) == 1


@pytest.mark.parametrize(
    ("make_ending", "counters"),
    [(lambda claim: Failed(claim, "gone"), (1, 0)), (lambda claim: Completed(claim, "[1]"), (1, 0))],
    ids=["failed", "completed"],
)
def test_requeueing_an_ended_segment_counts_it_back_and_asks_for_fresh_pages(
    engine: Engine, tables: Tables, make_ending: Callable[[Claimed], Ending], counters: tuple[int, int]
) -> None:
    job_id = tables.add_job("a", "b")
    end(engine, job_id, "b", lambda claim: Completed(claim, "[2]"))
    end(engine, job_id, "a", make_ending)
    assert tables.job(job_id).status in ("COMPLETED", "FAILED")
    sql(engine, "UPDATE segment_task SET attempts = 4, send_count = 9 WHERE segment_id = 'a'")
    tables.travel(100)
    before = tables.job(job_id).fresh_since
    sql(engine, REQUEUE, job=job_id)
    assert_clean(tables, job_id, attempts=0)
    assert tables.segment(job_id, "a").send_count == 0
    job = tables.job(job_id)
    assert (job.completed_segments, job.failed_segments, job.status) == (*counters, "IN_PROGRESS")
    assert job.fresh_since > before + 99
    end(engine, job_id, "a", lambda claim: Completed(claim, "[3]"))
    assert tables.job(job_id).status == "COMPLETED"
    assert problems(engine) == []


def test_requeueing_what_is_queued_changes_nothing(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job("a")
    before = tables.segment(job_id, "a"), tables.job(job_id)
    sql(engine, REQUEUE, job=job_id)
    assert (tables.segment(job_id, "a"), tables.job(job_id)) == before


def test_requeueing_many_at_once_counts_each(engine: Engine, tables: Tables) -> None:
    jobs = [tables.add_job("a", "b", "c") for _ in range(2)]
    for job_id in jobs:
        end(engine, job_id, "a", lambda claim: Failed(claim, "gone"))
        end(engine, job_id, "b", lambda claim: Completed(claim, "[]"))
    sql(engine, "UPDATE segment_task SET status = 'QUEUED'")
    assert {(job.completed_segments, job.failed_segments, job.status) for job in tables.jobs()} == {
        (0, 0, "IN_PROGRESS")
    }
    assert problems(engine) == []


WHOLE_JOB = """
INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)
VALUES (%(job)s, 'M', %(count)s, %(count)s, 'COMPLETED');
INSERT INTO segment_task (job_id, segment_id, status, result_json)
SELECT %(job)s::uuid, 's' || n, 'COMPLETED', '[]' FROM generate_series(1, %(count)s) AS n;
INSERT INTO completion_outbox (job_id, manifestation_id, sent_at) VALUES (%(job)s, 'M', now());
"""
UPDATES = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'root_job'"


def count_updates(engine: Engine, statement: str, **parameters: Any) -> int:
    """How often rows of root_job are updated by `statement`."""
    counted = (
        f"SELECT set_config('test.before', ({UPDATES})::text, true); {statement};"
        f" SELECT ({UPDATES}) - current_setting('test.before')::bigint"
    )
    return int(run(engine, counted, parameters)[0][0])


@pytest.fixture
def session(engine: Engine) -> Iterator[Engine]:
    """An engine of one connection, so that all of its statements are of one session."""
    url = engine.url.render_as_string(hide_password=False)
    session = Engine(url, pool_size=1)
    yield session
    session.dispose()


@pytest.mark.parametrize("before", [0, 1], ids=["at first", "after one of a single row"])
def test_requeueing_a_whole_job_updates_it_once(tables: Tables, session: Engine, before: int) -> None:
    """And in a time that grows with its rows, whatever was planned for the UPDATE before: one that grows with their
    square does not end within PostgreSQL's time-out."""
    small, large, rows = str(uuid.uuid4()), str(uuid.uuid4()), 20_000
    run(session, WHOLE_JOB + "ANALYZE", {"job": large, "count": rows})
    run(session, WHOLE_JOB, {"job": small, "count": 1})
    for _ in range(before):
        run(session, "UPDATE segment_task SET status = 'QUEUED' WHERE job_id = %(job)s", {"job": small})
    requeue = "UPDATE segment_task SET status = 'QUEUED' WHERE job_id = %(job)s"
    assert count_updates(session, requeue, job=large) == 1
    job = tables.job(large)
    assert (job.completed_segments, job.failed_segments, job.status) == (0, 0, "IN_PROGRESS")
    assert run(session, "SELECT DISTINCT status FROM segment_task WHERE job_id = %(job)s", {"job": large}) == [
        ("QUEUED",)
    ]


def test_requeueing_several_jobs_updates_each_that_counts_something_once(engine: Engine, tables: Tables) -> None:
    jobs = [tables.add_job(*"abcdef") for _ in range(3)]
    for job_id in jobs:
        end(engine, job_id, "a", lambda claim: Failed(claim, "gone"))
        end(engine, job_id, "b", lambda claim: Completed(claim, "[]"))
        end(engine, job_id, "c", lambda claim: Completed(claim, "[]"))
        end(engine, job_id, "d", lambda claim: Postponed(claim, "slow", 500.0))
        claim(engine, job_id, "e")
    other = tables.add_job(*"ab")
    claim(engine, other, "a")
    untouched = tables.job(other)
    assert count_updates(engine, "UPDATE segment_task SET status = 'QUEUED' WHERE segment_id <> 'c'") == 3
    assert {(tables.job(each).completed_segments, tables.job(each).failed_segments) for each in jobs} == {(1, 0)}
    assert tables.job(other) == untouched
    assert {row.status for row in tables.segments() if row.segment_id != "c"} == {"QUEUED"}
    assert problems(engine) == []


def test_an_update_that_only_passes_by_a_status_counts_nothing(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job(*"ab")
    end(engine, job_id, "a", lambda claim: Completed(claim, "[]"))
    before = tables.job(job_id)
    sql(engine, "UPDATE segment_task SET status = status, result_location = 'here'")
    assert tables.job(job_id) == before
    assert problems(engine) == []


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_requeueing_waits_for_what_is_being_counted_and_counts_on_from_there(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job(*"abc")
    end(engine, job_id, "a", lambda claim: Completed(claim, "[]"))
    with engine.connect() as counting, ThreadPoolExecutor() as threads:
        counting.exec_driver_sql(
            "BEGIN; UPDATE segment_task SET status = 'COMPLETED', result_json = '[]' WHERE segment_id = 'b';"
            " UPDATE root_job SET completed_segments = completed_segments + 1"
        )
        requeueing = threads.submit(sql, engine, REQUEUE, job=job_id)
        wait_until(lambda: run(engine, WAITING) == [(1,)], "the operator's UPDATE to wait for the job")
        counting.exec_driver_sql("COMMIT")
        requeueing.result(timeout=60)
    assert tables.job(job_id).completed_segments == 1
    assert problems(engine) == []


def test_settling_waits_for_a_requeueing_and_counts_on_from_there(engine: Engine, tables: Tables) -> None:
    job_id = tables.add_job(*"abc")
    end(engine, job_id, "a", lambda claim: Completed(claim, "[]"))
    (running,) = claim(engine, job_id, "b")
    with engine.connect() as operator, ThreadPoolExecutor() as threads:
        operator.exec_driver_sql("BEGIN; UPDATE segment_task SET status = 'QUEUED' WHERE segment_id = 'a'")
        settling = threads.submit(PostgresResults(engine).settle, [Completed(running, "[]")])
        wait_until(lambda: run(engine, WAITING) == [(1,)], "settling to wait for the job")
        operator.exec_driver_sql("COMMIT")
        assert settling.result(timeout=60).task_ids == {running.task_id}
    assert tables.job(job_id).completed_segments == 1
    assert problems(engine) == []


# What the tables refuse


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE root_job SET status = 'RETRYING'",
        "UPDATE root_job SET status = 'Completed'",
        "UPDATE root_job SET completed_segments = -1",
        "UPDATE root_job SET failed_segments = -1",
        "UPDATE root_job SET total_segments = -1",
        "UPDATE segment_task SET status = 'DONE'",
        "UPDATE segment_task SET attempts = -1",
        "UPDATE segment_task SET send_count = -1",
        "UPDATE segment_task SET span_start = 5, span_end = 4",
        "UPDATE segment_task SET span_start = -1, span_end = 4",
        "UPDATE segment_task SET span_start = 1",
        "UPDATE segment_task SET span_end = 1",
        "UPDATE segment_task SET segment_id = 'a'",
        "UPDATE segment_task SET job_id = gen_random_uuid()",
        "INSERT INTO completion_outbox (job_id, manifestation_id) VALUES (gen_random_uuid(), 'M')",
        "INSERT INTO completion_outbox (job_id, manifestation_id) SELECT job_id, 'M' FROM root_job, (VALUES (1), (2))",
        "DELETE FROM root_job",
    ],
)
def test_nonsense_is_refused(engine: Engine, tables: Tables, statement: str) -> None:
    tables.add_job("a", "b")
    with pytest.raises(IntegrityError):
        sql(engine, statement)


def test_every_published_status_is_accepted(engine: Engine, tables: Tables) -> None:
    tables.add_job("a")
    for status in JOB_STATUSES:
        sql(engine, "UPDATE root_job SET status = :status", status=status)
    for status in SEGMENT_STATUSES:
        sql(engine, "UPDATE segment_task SET status = :status", status=status)
    assert JOB_STATUSES == ("QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED")
    assert SEGMENT_STATUSES == ("QUEUED", "IN_PROGRESS", "COMPLETED", "RETRYING", "FAILED")
