"""A producer that counts wrong: each such job ends, or is explained and can be ended, by an operator's own commands."""

import json

import pytest

from app.core.jobs import ConflictError, Miscount
from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.db.repairs import PostgresRepairs
from app.jobs.repairs import cancel
from tests.support.commands import Command
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, fail, make_job, rows, segments, statuses
from tests.support.services import Queues

IDS = [segment[0] for segment in segments(4)]


def make_miscounted(engine: Engine, total: int, count: int = 4) -> str:
    """A job whose producer has written `total` and made `count` rows."""
    job_id = make_job(engine, count)
    run(engine, f"UPDATE root_job SET total_segments = {total} WHERE job_id = '{job_id}'")
    run(engine, "UPDATE segment_task SET last_sent_at = clock_timestamp()")
    return job_id


def complete_all(engine: Engine, job_id: str) -> None:
    """One after the other, as different workers would."""
    for segment_id in IDS:
        complete(engine, claimed(engine, job_id, [segment_id]))


def job(engine: Engine, job_id: str) -> tuple[str, int, int]:
    found = PostgresJobs(engine).get(job_id)
    assert found is not None
    return found.status, found.completed_segments, found.failed_segments


def correction(job_id: str, total: int) -> str:
    return f"UPDATE root_job SET total_segments = {total} WHERE job_id = '{job_id}';"


@pytest.mark.parametrize("total", [3, 0])
def test_more_rows_than_the_total_end_and_so_does_the_job(
    command: Command, engine: Engine, queues: Queues, total: int
) -> None:
    job_id = make_miscounted(engine, total)
    what = f"total_segments of job {job_id} (QUEUED) says {total}, it has 4 segments: it ends with the last of them"
    for name in ("status", "reconcile"):
        ran = command(name, job_id)
        assert ran.code == 0
        assert f"{what}. To correct it: {correction(job_id, 4)}\n" in ran.out
    complete(engine, claimed(engine, job_id, IDS[:3]))
    command("reconcile", job_id)
    assert job(engine, job_id) == ("IN_PROGRESS", 3, 0)
    assert "0 to do" in command("status", job_id).out

    complete(engine, claimed(engine, job_id, IDS[3:]))
    assert command("reconcile", job_id).code == 0

    assert job(engine, job_id) == ("COMPLETED", 4, 0)
    messages = queues.completed.receive(10, 1, 30) or queues.completed.receive(10, 1, 30)
    assert {json.loads(message["Body"])["job_id"] for message in messages} <= {job_id}
    assert command("reconcile").out == "Nothing to repair.\n"


@pytest.mark.parametrize("total", [3, 0])
def test_one_that_failed_among_more_rows_than_the_total_fails_the_job(
    command: Command, engine: Engine, total: int
) -> None:
    job_id = make_miscounted(engine, total)
    fail(engine, claimed(engine, job_id, IDS[:1]))
    complete(engine, claimed(engine, job_id, IDS[1:]))
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'")
    assert "1 jobs had ended without being told so" in command("reconcile", job_id).out
    assert job(engine, job_id) == ("FAILED", 3, 1)


def test_fewer_rows_than_the_total_are_explained_until_it_is_corrected(command: Command, engine: Engine) -> None:
    job_id = make_miscounted(engine, 5)
    complete_all(engine, job_id)
    for ran in (command("status", job_id), command("reconcile", job_id), command("reconcile")):
        assert (
            f"total_segments of job {job_id} (IN_PROGRESS) says 5, it has 4 segments: it can't end. If no more are to"
            f" come, correct it: {correction(job_id, 4)} or end it: python -m app.jobs cancel {job_id}\n"
        ) in ran.out
    assert command("reconcile", job_id).code == command("reconcile").code == 1

    run(engine, correction(job_id, 4))

    ran = command("reconcile", job_id)
    assert (ran.code, job(engine, job_id)) == (0, ("COMPLETED", 4, 0))
    assert "1 jobs had ended without being told so" in ran.out
    assert "total_segments" not in command("status", job_id).out


@pytest.mark.parametrize("total", [0, 2])
def test_a_job_without_rows_is_explained(command: Command, engine: Engine, total: int) -> None:
    job_id = make_miscounted(engine, total, count=0)
    for ran in (command("status", job_id), command("reconcile", job_id), command("reconcile")):
        assert (
            f"job {job_id} (QUEUED) has no segments: unless its producer has yet to write them, end it:"
            f" python -m app.jobs cancel {job_id}\n"
        ) in ran.out
    assert command("reconcile", job_id).code == command("reconcile").code == 1


@pytest.mark.parametrize(("total", "count"), [(3, 4), (5, 4), (0, 4), (0, 0), (2, 0)])
def test_each_can_be_cancelled_at_any_time(command: Command, engine: Engine, total: int, count: int) -> None:
    done = min(count, 3)
    for ended in (0, done):
        job_id = make_miscounted(engine, total, count)
        complete(engine, claimed(engine, job_id, IDS[:ended]))
        run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'")
        assert command("cancel", job_id).code == 0
        assert job(engine, job_id) == ("FAILED", ended, count - ended)
        ran = command("reconcile", job_id)
        assert (ran.code, "it can't end" in ran.out) == (0, False)
        assert "end it" not in command("status", job_id).out
        assert set(statuses(engine, job_id)) <= {"COMPLETED", "FAILED"}


@pytest.mark.parametrize("total", [3, 0])
def test_what_is_completed_beyond_its_total_can_not_be_cancelled(engine: Engine, total: int) -> None:
    job_id = make_miscounted(engine, total)
    complete_all(engine, job_id)
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS'")
    with pytest.raises(ConflictError, match="all its segments are COMPLETED"):
        cancel(PostgresRepairs(engine), PostgresJobs(engine), job_id)


def test_only_what_has_not_ended_is_looked_for_among_all(engine: Engine) -> None:
    ended, open_, right = make_miscounted(engine, 3), make_miscounted(engine, 5), make_miscounted(engine, 4)
    run(engine, f"UPDATE root_job SET status = 'FAILED' WHERE job_id = '{ended}'")
    repairs = PostgresRepairs(engine)
    assert repairs.find_miscounted(None) == [Miscount(open_, "QUEUED", 5, 4)]
    assert repairs.find_miscounted(ended) == [Miscount(ended, "FAILED", 3, 4)]
    assert repairs.find_miscounted(right) == []


def test_wrong_counters_of_a_job_with_too_many_rows_are_mended(command: Command, engine: Engine) -> None:
    job_id = make_miscounted(engine, 3)
    complete_all(engine, job_id)
    run(engine, "UPDATE root_job SET status = 'IN_PROGRESS', completed_segments = 1")
    assert "counted 1 completed and 0 failed of 3, its rows say 4 and 0: mended" in command("reconcile", job_id).out
    assert job(engine, job_id) == ("COMPLETED", 4, 0)
    assert len(rows(engine, "SELECT 1 FROM completion_outbox WHERE sent_at IS NOT NULL")) == 1
