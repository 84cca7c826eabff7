"""An operator's retry, cancel and repair on PostgreSQL, also while workers are at the same segments."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import batched

import pytest

from app.core.jobs import ConflictError, Job, NotFoundError
from app.core.segments import AlreadyCompleted, Claimed, JobCancelled
from app.core.unsent import RESEND_AFTER_SECONDS
from app.db import postgres
from app.db.jobs import PostgresJobs
from app.db.outbox import PostgresOutbox
from app.db.postgres import run
from app.db.repairs import PostgresRepairs
from app.jobs.repairs import CHUNK_SEGMENTS, MOST_ON_QUEUE, Reconciliation, cancel, reconcile, retry
from app.outbox.pace import FEWEST_RESENT
from app.outbox.sweep import SweepReport
from tests.support.engine import Engine
from tests.support.jobs import (
    assert_true,
    claim,
    claimed,
    complete,
    fail,
    make_job,
    rows,
    segments,
    statuses,
)
from tests.support.worker import wait_until

RACES = 15


class CountingSweep:
    """A sweep that says what it is told to say, and then that there is nothing."""

    def __init__(self, *reports: SweepReport) -> None:
        self.reports = list(reports)
        self.calls: list[tuple[str | None, float | None, int]] = []

    def run(self, job_id: str | None = None, after_seconds: float | None = None, limit: int = 100) -> SweepReport:
        self.calls.append((job_id, after_seconds, limit))
        return self.reports.pop(0) if self.reports else SweepReport()


def job_of(engine: Engine, job_id: str) -> Job:
    job = PostgresJobs(engine).get(job_id)
    assert job is not None
    return job


def do_retry(engine: Engine, job_id: str) -> int:
    return retry(PostgresRepairs(engine), PostgresJobs(engine), job_id)


def do_cancel(engine: Engine, job_id: str) -> int:
    return cancel(PostgresRepairs(engine), PostgresJobs(engine), job_id)


def do_reconcile(engine: Engine, job_id: str | None = None) -> Reconciliation:
    return reconcile(PostgresRepairs(engine), CountingSweep(), job_id, RESEND_AFTER_SECONDS, messages_on_queue=0)


@contextmanager
def at_the_same_time(*steps: Callable[[], object]) -> Iterator[None]:
    """Runs the steps in threads beside the body, all starting together; what they raise is raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(steps) + 1)

    def guarded(step: Callable[[], object]) -> None:
        try:
            start.wait(10)
            step()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    start.wait(10)
    yield
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if raised:
        raise raised[0]


def in_batches(
    engine: Engine, ending: Callable[[Engine, Sequence[Claimed]], object], claims: list[Claimed]
) -> Callable[[], None]:
    def work() -> None:
        for batch in batched(claims, 10):
            ending(engine, batch)

    return work


def test_failed_segments_are_queued_again_and_counted_back(engine: Engine) -> None:
    job_id = make_job(engine, 4)
    PostgresJobs(engine).mark_sent([t.task_id for t in PostgresJobs(engine).list_unsent(job_id, None, 9)])
    claims = claimed(engine, job_id, [segment[0] for segment in segments(4)])
    complete(engine, claims[:1])
    fail(engine, claims[1:])
    before = rows(engine, "SELECT fresh_since FROM root_job")[0][0]
    assert job_of(engine, job_id).status == "FAILED"

    assert do_retry(engine, job_id) == 3

    job = job_of(engine, job_id)
    assert (job.status, job.completed_segments, job.failed_segments) == ("IN_PROGRESS", 1, 0)
    assert rows(engine, "SELECT fresh_since FROM root_job")[0][0] > before
    sql = "SELECT DISTINCT status, attempts, error_message, last_sent_at FROM segment_task WHERE segment_id > 's00000'"
    assert rows(engine, sql) == [("QUEUED", 0, None, None)]
    assert len(PostgresJobs(engine).list_unsent(job_id, None, 9)) == 3
    complete(engine, claimed(engine, job_id, [segment[0] for segment in segments(4)][1:]))
    assert job_of(engine, job_id).status == "COMPLETED"
    assert_true(engine)


def test_nothing_failed_is_nothing_to_retry(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    before = rows(engine, "SELECT * FROM root_job")
    assert do_retry(engine, job_id) == 0
    assert rows(engine, "SELECT * FROM root_job") == before
    with pytest.raises(NotFoundError):
        do_retry(engine, str(uuid.uuid4()))


def test_more_than_one_chunk_is_retried(engine: Engine) -> None:
    job_id = make_job(engine, CHUNK_SEGMENTS + 7)
    assert do_cancel(engine, job_id) == CHUNK_SEGMENTS + 7
    assert do_retry(engine, job_id) == CHUNK_SEGMENTS + 7
    assert statuses(engine, job_id) == {"QUEUED": CHUNK_SEGMENTS + 7}
    assert_true(engine)


def test_a_chunk_is_bounded(engine: Engine) -> None:
    job_id = make_job(engine, 5)
    do_cancel(engine, job_id)
    assert PostgresRepairs(engine).requeue_failed(job_id, 2) == 2
    assert statuses(engine, job_id) == {"FAILED": 3, "QUEUED": 2}
    assert_true(engine)


def test_cancelling_ends_what_is_unfinished_and_nothing_else(engine: Engine) -> None:
    job_id, other = make_job(engine, 6), make_job(engine, 1)
    claims = claimed(engine, job_id, ["s00000", "s00001", "s00002", "s00003"])
    complete(engine, claims[:1])
    fail(engine, claims[1:2])
    run(engine, "UPDATE segment_task SET status = 'RETRYING', retry_at = now() WHERE segment_id = 's00004'")

    assert do_cancel(engine, job_id) == 4

    job = job_of(engine, job_id)
    assert (job.status, job.completed_segments, job.failed_segments) == ("FAILED", 1, 5)
    assert job.cancelled_at is not None
    sql = "SELECT segment_id, error_message FROM segment_task WHERE status = 'FAILED' ORDER BY segment_id"
    assert rows(engine, sql) == [("s00001", "broken"), *((f"s0000{at}", "cancelled") for at in (2, 3, 4, 5))]
    leftovers = (
        "claim_token IS NOT NULL OR lease_expires_at IS NOT NULL OR claimed_by IS NOT NULL OR retry_at IS NOT NULL"
    )
    assert rows(engine, f"SELECT segment_id FROM segment_task WHERE {leftovers}") == []
    assert job_of(engine, other).status == "QUEUED"
    assert_true(engine)


def test_a_running_claimant_can_write_nothing_into_a_cancelled_job(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    claims = claimed(engine, job_id, ["s00000", "s00001"])
    do_cancel(engine, job_id)
    assert complete(engine, claims[:1]).task_ids == frozenset()
    assert fail(engine, claims[1:]).task_ids == frozenset()
    assert statuses(engine, job_id) == {"FAILED": 2}
    assert rows(engine, "SELECT count(*) FROM completion_outbox") == [(0,)]
    assert_true(engine)


def test_a_message_of_a_cancelled_job_is_not_worked_on(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    do_cancel(engine, job_id)
    redriven = int(time.time() * 1000) + 60_000
    answers = claim(engine, job_id, ["s00000", "s00001"], sent_at_ms=redriven)
    assert answers == [AlreadyCompleted(), JobCancelled()]
    assert statuses(engine, job_id) == {"COMPLETED": 1, "FAILED": 1}


def test_a_retry_takes_a_cancellation_back(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    do_cancel(engine, job_id)
    assert do_retry(engine, job_id) == 2
    assert job_of(engine, job_id).cancelled_at is None
    complete(engine, claimed(engine, job_id, ["s00000", "s00001"]))
    assert job_of(engine, job_id).status == "COMPLETED"
    assert_true(engine)


def test_a_completed_job_refuses_to_be_cancelled(engine: Engine) -> None:
    job_id = make_job(engine, 1)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    before = rows(engine, "SELECT * FROM root_job")
    with pytest.raises(ConflictError, match=job_id):
        do_cancel(engine, job_id)
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'")  # ended, and not told so yet
    with pytest.raises(ConflictError):
        do_cancel(engine, job_id)
    run(engine, "UPDATE root_job SET status = 'COMPLETED'")
    assert rows(engine, "SELECT * FROM root_job") == before
    with pytest.raises(NotFoundError):
        do_cancel(engine, str(uuid.uuid4()))


def test_cancelling_twice_is_cancelling_once(engine: Engine) -> None:
    job_id = make_job(engine, 2)
    assert do_cancel(engine, job_id) == 2
    first = job_of(engine, job_id).cancelled_at
    assert do_cancel(engine, job_id) == 0
    assert job_of(engine, job_id).cancelled_at == first
    assert_true(engine)


def test_a_cancellation_amid_results_counts_each_segment_once(engine: Engine) -> None:
    for _ in range(RACES):
        job_id = make_job(engine, 60)
        claims = claimed(engine, job_id, [segment[0] for segment in segments(60)])
        with at_the_same_time(
            in_batches(engine, complete, claims[:30]),
            in_batches(engine, fail, claims[30:][::-1]),
            lambda job_id=job_id: do_cancel(engine, job_id),  # type: ignore[misc]
        ):
            pass
        assert sum(statuses(engine, job_id).values()) == 60
        assert set(statuses(engine, job_id)) <= {"COMPLETED", "FAILED"}
        assert_true(engine)


def test_no_redriven_message_slips_through_a_cancellation(engine: Engine) -> None:
    """Either the revived segment is ended by the cancellation, or it is not revived."""
    redriven = int(time.time() * 1000) + 60_000
    ids = [segment[0] for segment in segments(20)]
    for _ in range(RACES):
        job_id = make_job(engine, 20)
        fail(engine, claimed(engine, job_id, ids[:10]))
        with at_the_same_time(
            lambda job_id=job_id: claim(engine, job_id, ids[:5], sent_at_ms=redriven),  # type: ignore[misc]
            lambda job_id=job_id: claim(engine, job_id, ids[5:15], sent_at_ms=redriven),  # type: ignore[misc]
            lambda job_id=job_id: do_cancel(engine, job_id),  # type: ignore[misc]
        ):
            pass
        assert statuses(engine, job_id) == {"FAILED": 20}
        assert_true(engine)


def test_retries_amid_failures_lose_no_count(engine: Engine) -> None:
    for _ in range(RACES):
        job_id = make_job(engine, 60)
        claims = claimed(engine, job_id, [segment[0] for segment in segments(60)])
        with at_the_same_time(
            in_batches(engine, fail, claims[:30]),
            in_batches(engine, complete, claims[30:]),
            lambda job_id=job_id: [do_retry(engine, job_id) for _ in range(5)],  # type: ignore[misc]
            lambda job_id=job_id: [do_retry(engine, job_id) for _ in range(5)],  # type: ignore[misc]
        ):
            pass
        assert_true(engine)


def test_a_sound_job_has_nothing_to_repair(engine: Engine) -> None:
    job_id = make_job(engine, 3)
    claims = claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, claims[:1])
    fail(engine, claims[1:])
    cancelled = make_job(engine, 1)
    do_cancel(engine, cancelled)
    before = rows(engine, "SELECT * FROM root_job ORDER BY job_id")
    assert do_reconcile(engine).found_nothing
    assert not PostgresRepairs(engine).repair(job_id)
    assert rows(engine, "SELECT * FROM root_job ORDER BY job_id") == before


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        ("UPDATE root_job SET completed_segments = 0", "IN_PROGRESS"),
        ("UPDATE root_job SET completed_segments = 0, failed_segments = 2", "IN_PROGRESS"),
        ("UPDATE root_job SET status = 'COMPLETED'", "IN_PROGRESS"),
        ("UPDATE root_job SET status = 'FAILED'", "IN_PROGRESS"),
        ("UPDATE root_job SET status = 'COMPLETED', total_segments = 1", "IN_PROGRESS"),
        ("UPDATE root_job SET status = 'FAILED', total_segments = 1", "IN_PROGRESS"),
        ("UPDATE root_job SET status = 'FAILED', cancelled_at = now(), failed_segments = 0", "FAILED"),
        ("UPDATE segment_task SET status = 'FAILED' WHERE status = 'QUEUED'", "IN_PROGRESS"),
    ],
)
def test_a_job_that_contradicts_its_rows_is_mended_once(engine: Engine, damage: str, status: str) -> None:
    job_id, sound = make_job(engine, 3), make_job(engine, 1, "sound")
    claims = claimed(engine, job_id, ["s00000", "s00001"])
    complete(engine, claims[:1])
    fail(engine, claims[1:])
    before = rows(engine, f"SELECT * FROM root_job WHERE job_id = '{sound}'")
    run(
        engine,
        damage.replace("root_job SET", "root_job SET updated_at = now(),")
        + (f" {'AND' if 'WHERE' in damage else 'WHERE'} job_id = '{job_id}'"),
    )

    found = do_reconcile(engine)

    assert [drift.job_id for drift in found.repaired] == [job_id]
    job = job_of(engine, job_id)
    assert (job.completed_segments, job.failed_segments) == (1, statuses(engine, job_id)["FAILED"])
    assert job.status == status
    assert rows(engine, f"SELECT * FROM root_job WHERE job_id = '{sound}'") == before
    assert do_reconcile(engine).repaired == []


def test_only_the_named_job_is_looked_at_however_old_it_is(engine: Engine) -> None:
    named, other = make_job(engine, 2), make_job(engine, 2)
    run(engine, "UPDATE root_job SET failed_segments = 1, status = 'COMPLETED', updated_at = now() - interval '2 days'")
    assert PostgresRepairs(engine).find_drift(None) == []
    assert [drift.job_id for drift in do_reconcile(engine, named).repaired] == [named]
    assert job_of(engine, other).failed_segments == 1


def test_repairing_waits_for_a_result_that_is_just_being_counted(engine: Engine) -> None:
    """Rows counted before the job's lock would be older than the counters that they replace."""
    job_id = make_job(engine, 9)
    run(engine, "UPDATE root_job SET completed_segments = 5")
    counting = engine.connect().execution_options(isolation_level="READ COMMITTED")
    with counting, counting.begin():
        counting.exec_driver_sql("UPDATE segment_task SET status = 'COMPLETED' WHERE segment_id < 's00003'")
        counting.exec_driver_sql("UPDATE root_job SET completed_segments = completed_segments + 3")
        repairing = threading.Thread(target=PostgresRepairs(engine).repair, args=(job_id,))
        repairing.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: rows(engine, waiting), "the repair to wait for the job's lock")
    repairing.join(10)
    assert job_of(engine, job_id).completed_segments == 3
    assert_true(engine)


def test_repairs_amid_results_leave_what_is_right(engine: Engine) -> None:
    repairs = PostgresRepairs(engine)
    for _ in range(RACES):
        job_id = make_job(engine, 60)
        claims = claimed(engine, job_id, [segment[0] for segment in segments(60)])
        seen: list[object] = []
        with at_the_same_time(
            in_batches(engine, complete, claims[:30]),
            in_batches(engine, fail, claims[30:50]),
            lambda job_id=job_id: [repairs.repair(job_id) for _ in range(10)],  # type: ignore[misc]
            lambda job_id=job_id, seen=seen: [seen.extend(repairs.find_drift(job_id)) for _ in range(20)],  # type: ignore[misc]
        ):
            pass
        assert seen == []
        assert_true(engine)


def test_it_sends_messages_once_and_sweeps_until_there_is_nothing_else(engine: Engine) -> None:
    make_job(engine, 150)
    repairs = PostgresRepairs(engine)
    sweep = CountingSweep(SweepReport(completions_sent=100, segments_resent=130), SweepReport(completions_sent=3))
    found = reconcile(repairs, sweep, None, 0.0, messages_on_queue=1_000)
    assert found.swept == SweepReport(completions_sent=103, segments_resent=130)
    assert sweep.calls == [(None, 0.0, MOST_ON_QUEUE - 1_000), (None, 0.0, 0), (None, 0.0, 0)]
    assert (found.left, found.is_complete) == (20, False)


def test_into_a_full_queue_it_sends_no_more_than_a_worker_would(engine: Engine) -> None:
    sweep = CountingSweep()
    reconcile(PostgresRepairs(engine), sweep, None, 0.0, messages_on_queue=19_950)
    assert sweep.calls[0] == (None, 0.0, FEWEST_RESENT)


@contextmanager
def producing(engine: Engine, job_id: str) -> Iterator[None]:
    """A producer has inserted one more segment and has not committed yet: its foreign key shares the job's row."""
    with engine.connect() as producer:
        producer.exec_driver_sql("BEGIN")
        producer.exec_driver_sql(f"INSERT INTO segment_task (job_id, segment_id) VALUES ('{job_id}', 'new')")
        yield
        producer.exec_driver_sql("ROLLBACK")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements wait for no lock."""
    soon = postgres.bounds(100)
    monkeypatch.setattr(postgres, "bounds", lambda _: soon)


@pytest.mark.usefixtures("hasty")
def test_no_statement_waits_for_a_producer_s_open_insert(engine: Engine) -> None:
    job_id = make_job(engine, 3)
    repairs, jobs, outbox = PostgresRepairs(engine), PostgresJobs(engine), PostgresOutbox(engine)
    fail(engine, claimed(engine, job_id, ["s00000"]))
    with producing(engine, job_id):
        assert repairs.requeue_failed(job_id, 10) == 1
        jobs.mark_sent([segment.task_id for segment in jobs.list_unsent(job_id, None, 10)])
        run(engine, "UPDATE root_job SET failed_segments = 2")
        assert repairs.repair(job_id)
        assert len(outbox.mark_for_resending(10, job_id, 0.0)) == 3
        assert repairs.cancel(job_id) == 3
        assert repairs.requeue_failed(job_id, 10) == 3
        jobs.create(job_id, "m", segments(3))
        jobs.create(str(uuid.uuid4()), "m", segments(3))
    complete(engine, claimed(engine, job_id, [segment[0] for segment in segments(3)]))
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS' WHERE status = 'COMPLETED'; DELETE FROM completion_outbox")
    with producing(engine, job_id):
        assert outbox.finish_forgotten() == [(job_id, "COMPLETED")]
        assert [each.job_id for each in outbox.lease_unsent(10)] == [job_id]
