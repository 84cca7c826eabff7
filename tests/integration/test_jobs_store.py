"""Making jobs in PostgreSQL, keeping track of what was sent, and reading them."""

import json
import uuid
from contextlib import ExitStack

import pytest

from app.db.jobs import RECORDS_PER_QUERY, PostgresJobs
from app.db.postgres import OVERFLOW, Database, run
from app.errors import DataError
from tests.support.engine import Engine
from tests.support.jobs import (
    RESULT,
    assert_true,
    claimed,
    complete,
    fail,
    make_job,
    rows,
    segments,
    statuses,
)


def test_a_job_is_written_with_its_segments_and_their_spans(engine: Engine) -> None:
    job_id = make_job(engine, 3, "a text")
    job = PostgresJobs(engine).get(job_id)
    assert job is not None
    assert (job.manifestation_id, job.total_segments, job.completed_segments, job.failed_segments) == (
        "a text",
        3,
        0,
        0,
    )
    assert (job.status, job.has_ended, job.open_segments, job.cancelled_at) == ("QUEUED", False, 3, None)
    assert job.created_at.tzinfo is not None
    sql = "SELECT segment_id, span_start, span_end, status, last_sent_at, send_count FROM segment_task ORDER BY 1"
    assert rows(engine, sql) == [(*segment, "QUEUED", None, 0) for segment in segments(3)]


def test_making_a_job_twice_makes_it_once(engine: Engine) -> None:
    """A connection that is cut after the commit makes `run` send the statements again."""
    job_id = make_job(engine, 3)
    PostgresJobs(engine).create(job_id, "m", segments(3))
    assert rows(engine, "SELECT (SELECT count(*) FROM root_job), (SELECT count(*) FROM segment_task)") == [(1, 3)]


def test_a_job_that_cannot_be_written_whole_is_not_written(engine: Engine) -> None:
    with pytest.raises(DataError):
        PostgresJobs(engine).create(str(uuid.uuid4()), "m", [("fine", 0, 1), ("reversed", 2, 1)])
    assert rows(engine, "SELECT (SELECT count(*) FROM root_job), (SELECT count(*) FROM segment_task)") == [(0, 0)]


def test_an_unknown_job_is_none(engine: Engine) -> None:
    assert PostgresJobs(engine).get(str(uuid.uuid4())) is None


def test_what_was_not_sent_comes_in_pages_by_id(engine: Engine) -> None:
    jobs, job_id = PostgresJobs(engine), make_job(engine, 5)
    make_job(engine, 2)
    first = jobs.list_unsent(job_id, None, 3)
    second = jobs.list_unsent(job_id, first[-1].segment_id, 3)
    assert [s.segment_id for s in (*first, *second)] == [segment[0] for segment in segments(5)]
    assert (first[1].job_id, first[1].manifestation_id, first[1].start, first[1].end) == (job_id, "m", 10, 20)
    assert jobs.list_unsent(job_id, second[-1].segment_id, 3) == []


def test_what_was_sent_or_is_in_somebodys_hands_is_not_unsent(engine: Engine) -> None:
    jobs, job_id = PostgresJobs(engine), make_job(engine, 5)
    jobs.mark_sent([task.task_id for task in jobs.list_unsent(job_id, None, 1)])
    in_work = claimed(engine, job_id, ["s00001", "s00002", "s00003"])
    complete(engine, in_work[:1])
    fail(engine, in_work[1:2])
    assert [task.segment_id for task in jobs.list_unsent(job_id, None, 10)] == ["s00004"]


def test_marking_counts_no_re_sending(engine: Engine) -> None:
    jobs, job_id = PostgresJobs(engine), make_job(engine, 2)
    jobs.mark_sent([jobs.list_unsent(job_id, None, 1)[0].task_id])
    sql = "SELECT last_sent_at BETWEEN now() - interval '1 minute' AND clock_timestamp(), send_count FROM segment_task"
    assert rows(engine, sql + " ORDER BY segment_id") == [(True, 0), (None, 0)]


def test_nothing_of_a_cancelled_job_is_unsent(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    run(engine, "UPDATE root_job SET cancelled_at = now()")
    assert PostgresJobs(engine).list_unsent(job_id, None, 10) == []


def test_spans_are_kept_where_there_are_none(engine: Engine) -> None:
    jobs, job_id = PostgresJobs(engine), make_job(engine, 2)
    run(engine, "UPDATE segment_task SET span_start = NULL, span_end = NULL WHERE segment_id = 's00000'")
    assert [(t.start, t.end) for t in jobs.list_unsent(job_id, None, 10)] == [(None, None), (10, 20)]
    jobs.store_spans([(task.task_id, 70, 80) for task in jobs.list_unsent(job_id, None, 10)])
    assert [(t.start, t.end) for t in jobs.list_unsent(job_id, None, 10)] == [(70, 80), (10, 20)]


def test_jobs_are_listed_the_newest_first(engine: Engine) -> None:
    jobs = PostgresJobs(engine)
    made = [make_job(engine, 1) for _ in range(3)]
    complete(engine, claimed(engine, made[0], ["s00000"]))
    assert [job.job_id for job in jobs.list_jobs(None, 10)] == made[::-1]
    assert [job.job_id for job in jobs.list_jobs(None, 2)] == made[:0:-1]
    assert [job.job_id for job in jobs.list_jobs("COMPLETED", 10)] == made[:1]


def test_the_newest_completed_job_of_a_text_goes_before_newer_unfinished_ones(engine: Engine) -> None:
    jobs = PostgresJobs(engine)
    make_job(engine, 1, "another text")
    assert jobs.find_newest("m") is None
    made = [make_job(engine, 1) for _ in range(3)]
    newest = jobs.find_newest("m")
    assert newest is not None
    assert newest.job_id == made[2]
    for job_id in made[:2]:
        complete(engine, claimed(engine, job_id, ["s00000"]))
    newest = jobs.find_newest("m")
    assert newest is not None
    assert newest.job_id == made[1]
    assert_true(engine)


def test_records_come_by_start_and_then_by_code_points(engine: Engine) -> None:
    job_id = str(uuid.uuid4())
    PostgresJobs(engine).create(job_id, "m", [("b", 5, 6), ("a", 5, 9), ("B", 5, 5), ("z", 0, 1), ("ཀ", 5, 5)])
    assert [record.segment_id for record in PostgresJobs(engine).read_records(job_id)] == ["z", "B", "a", "b", "ཀ"]


def test_records_say_what_became_of_each_segment(engine: Engine) -> None:
    job_id = make_job(engine, 3)
    done, broken = claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, [done])
    fail(engine, [broken])
    first, second, third = PostgresJobs(engine).read_records(job_id)
    assert json.loads(first.related or "") == json.loads(RESULT)
    assert (first.status, first.start, first.end, first.error) == ("COMPLETED", 0, 10, None)
    assert (second.status, second.related, second.error) == ("FAILED", None, "broken")
    assert (third.status, third.related, third.error) == ("QUEUED", None, None)
    assert statuses(engine, job_id) == {"COMPLETED": 1, "FAILED": 1, "QUEUED": 1}


def test_many_records_are_read_as_they_are_asked_for(postgres_url: str, engine: Engine) -> None:
    """A slow reader keeps neither a transaction nor a connection from others."""
    count = 2 * RECORDS_PER_QUERY + 1
    small = Database(postgres_url, pool_size=1)
    records = PostgresJobs(small).read_records(make_job(engine, count))
    first = next(records)
    with ExitStack() as everything:
        for _ in range(1 + OVERFLOW):
            everything.enter_context(small.pool.lend())
    run(engine, "UPDATE segment_task SET error_message = 'changed since'")
    rest = list(records)
    small.dispose()
    assert [first.segment_id, *(record.segment_id for record in rest)] == [segment[0] for segment in segments(count)]
    assert first.error is None
    assert rest[-1].error == "changed since"
