"""How claims and endings lock, by interleavings that are forced: what is locked first, and what a wait may change.

A bystander holds a row until the statement under test is seen waiting for it; nothing depends on luck.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection

from app.core.endings import Completed, GivenBack
from app.core.segments import AlreadyCompleted, ClaimAnswer, Claimed, HeldElsewhere, SegmentRequest
from app.db.claims import PostgresClaims
from app.db.outbox import SWEEP_LOCK, PostgresOutbox
from app.db.postgres import run
from app.db.results import PostgresResults
from app.errors import TransientError
from tests.support.asking import ask
from tests.support.endstate import problems
from tests.support.engine import Engine
from tests.support.tables import Tables
from tests.support.worker import wait_until

LOW, HIGH = "00000000-0000-4000-8000-000000000001", "ffffffff-ffff-4fff-bfff-fffffffffff1"
LEASE_SECONDS = 1_000.0
BEHIND = "SELECT count(*) FROM pg_stat_activity WHERE %(pid)s = ANY(pg_blocking_pids(pid))"
LOCKED = "SELECT count(*) FROM (SELECT FROM {table} WHERE {key} = %(id)s::uuid FOR UPDATE SKIP LOCKED) AS free"


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that stays open; committed at the end."""
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        yield connection
        connection.exec_driver_sql("COMMIT")


@pytest.fixture
def start() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a call in a thread of its own."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit


def wait_for_one_behind(engine: Engine, holder: Connection) -> None:
    """Return once a statement waits for a lock that `holder` has."""
    pid = holder.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    wait_until(lambda: run(engine, BEHIND, {"pid": pid})[0][0] == 1, "a statement to wait for the lock")


def is_locked(engine: Engine, table: str, row_id: str) -> bool:
    key = {"segment_task": "task_id", "root_job": "job_id"}[table]
    return bool(run(engine, LOCKED.format(table=table, key=key), {"id": row_id})[0][0] == 0)


def lock(connection: Connection, table: str, row_id: str) -> None:
    key = {"segment_task": "task_id", "root_job": "job_id"}[table]
    connection.exec_driver_sql(f"SELECT FROM {table} WHERE {key} = %(id)s::uuid FOR UPDATE", {"id": row_id})


def add_segment(engine: Engine, job_id: str, segment_id: str, task_id: str | None = None) -> None:
    run(
        engine,
        "INSERT INTO segment_task (task_id, job_id, segment_id, status)"
        " VALUES (coalesce(%(task)s::uuid, gen_random_uuid()), %(job)s, %(segment)s, 'QUEUED')",
        {"task": task_id, "job": job_id, "segment": segment_id},
    )


def add_job(engine: Engine, job_id: str, total: int) -> None:
    run(
        engine,
        "INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)"
        " VALUES (%(job)s, 'M', %(total)s, 0, 'QUEUED')",
        {"job": job_id, "total": total},
    )


def claim(engine: Engine, *wanted: tuple[str, str], worker: str = "worker") -> list[ClaimAnswer]:
    requests = [SegmentRequest(job_id, "M", segment_id, 0, 1, sent_at_ms=0) for job_id, segment_id in wanted]
    return ask(PostgresClaims(engine, worker, 5), requests, LEASE_SECONDS)


def take(engine: Engine, *wanted: tuple[str, str]) -> list[Claimed]:
    answers = claim(engine, *wanted)
    claims = [answer for answer in answers if isinstance(answer, Claimed)]
    assert len(claims) == len(wanted)
    return claims


# The order of locks: everywhere the same, so that no two transactions wait for each other


def claim_both(engine: Engine, job_id: str) -> Callable[[], object]:
    return lambda: claim(engine, (job_id, "a"), (job_id, "b"))


def complete_both(engine: Engine, job_id: str) -> Callable[[], object]:
    claims = take(engine, (job_id, "a"), (job_id, "b"))
    return lambda: PostgresResults(engine).settle([Completed(each, "[]") for each in claims])


@pytest.mark.parametrize("prepare", [claim_both, complete_both])
def test_segments_are_locked_by_task_id(
    engine: Engine, start: Callable[..., Future[Any]], prepare: Callable[[Engine, str], Callable[[], object]]
) -> None:
    """The row with the high id stands first in the table, in the batch and by name."""
    add_job(engine, LOW, total=2)
    add_segment(engine, LOW, "a", HIGH)
    add_segment(engine, LOW, "b", LOW)
    step = prepare(engine, LOW)
    with transaction(engine) as bystander:
        lock(bystander, "segment_task", HIGH)
        done = start(step)
        wait_for_one_behind(engine, bystander)
        assert is_locked(engine, "segment_task", LOW)
    assert done.result()


JOBS = [f"{digit * 8}-0000-4000-8000-000000000000" for digit in "fb9641"]


def add_jobs(engine: Engine) -> list[tuple[str, str]]:
    """The jobs, the highest first; the highest has the segment with the lowest task id."""
    for job_id, task_id in zip(JOBS, reversed(JOBS), strict=True):
        add_job(engine, job_id, total=1)
        add_segment(engine, job_id, "a", task_id)
    return [(job_id, "a") for job_id in JOBS]


def test_jobs_are_locked_by_job_id_when_segments_end(engine: Engine, start: Callable[..., Future[Any]]) -> None:
    claims = take(engine, *add_jobs(engine))
    with transaction(engine) as bystander:
        lock(bystander, "root_job", JOBS[0])
        done = start(PostgresResults(engine).settle, [Completed(each, "[]") for each in claims])
        wait_for_one_behind(engine, bystander)
        assert [job_id for job_id in JOBS if not is_locked(engine, "root_job", job_id)] == []
    assert len(done.result().announcements) == len(JOBS)


def test_a_job_that_somebody_has_locked_is_started_by_its_first_ending(engine: Engine) -> None:
    """A claim waits for no job."""
    wanted = add_jobs(engine)
    tables = Tables(engine)
    with transaction(engine) as bystander:
        lock(bystander, "root_job", JOBS[0])
        claims = take(engine, *wanted)
        assert [tables.job(job_id).status for job_id in JOBS] == ["QUEUED"] + ["IN_PROGRESS"] * (len(JOBS) - 1)
    assert len(PostgresResults(engine).settle([Completed(each, "[]") for each in claims]).announcements) == len(JOBS)
    assert {tables.job(job_id).status for job_id in JOBS} == {"COMPLETED"}


def test_results_are_stored_before_the_job_is_locked(engine: Engine, start: Callable[..., Future[Any]]) -> None:
    """While large results are stored, the job's other batches can be counted."""
    job_id = Tables(engine).add_job("a", "b")
    first, second = take(engine, (job_id, "a"), (job_id, "b"))
    run(
        engine,
        "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END$$;"
        " CREATE TRIGGER be_slow BEFORE UPDATE OF result_json ON segment_task"
        " FOR EACH ROW WHEN (NEW.segment_id = 'a') EXECUTE FUNCTION be_slow()",
    )
    with transaction(engine) as bystander:
        bystander.exec_driver_sql("SELECT pg_advisory_xact_lock(4711)")
        slow = start(PostgresResults(engine).settle, [Completed(first, "[]")])
        wait_for_one_behind(engine, bystander)
        assert not is_locked(engine, "root_job", job_id)
        assert PostgresResults(engine).settle([Completed(second, "[]")]).task_ids == {second.task_id}
    assert slow.result().announcements
    assert problems(engine) == []


# What others have locked


def test_a_producer_s_open_insert_holds_nobody_up(engine: Engine) -> None:
    """Its foreign key holds the job's key, which nobody of us changes."""
    tables = Tables(engine)
    job_id = tables.add_job("a", "b", total=3)
    with transaction(engine) as producer:
        producer.exec_driver_sql(
            "INSERT INTO segment_task (job_id, segment_id, status) VALUES (%(job)s, 'c', 'QUEUED')", {"job": job_id}
        )
        claims = take(engine, (job_id, "a"), (job_id, "b"))
        assert tables.job(job_id).status == "IN_PROGRESS"
        assert PostgresResults(engine).settle([Completed(each, "[]") for each in claims]).task_ids
        assert tables.job(job_id).completed_segments == 2
    assert PostgresResults(engine).settle([Completed(each, "[]") for each in take(engine, (job_id, "c"))]).announcements


def test_a_lease_is_renewed_beside_a_row_that_somebody_has_locked(engine: Engine) -> None:
    tables = Tables(engine)
    job_id = tables.add_job("locked", "free")
    claims = take(engine, (job_id, "locked"), (job_id, "free"))
    before = {name: tables.segment(job_id, name).lease_expires_at for name in ("locked", "free")}
    with transaction(engine) as bystander:
        lock(bystander, "segment_task", claims[0].task_id)
        kept = PostgresClaims(engine, "worker", 5).renew(claims, LEASE_SECONDS + 500)
    assert kept == {claim.token for claim in claims}
    after = {name: tables.segment(job_id, name).lease_expires_at for name in ("locked", "free")}
    assert after["locked"] == before["locked"]
    assert (after["free"] or 0) > (before["free"] or 0) + 400


# What a wait may change


def test_a_claim_that_waited_sees_what_it_waited_for(engine: Engine, start: Callable[..., Future[Any]]) -> None:
    """Its answer is about the state after the wait; deciding in one statement would call the row QUEUED."""
    job_id = Tables(engine).add_job("a")
    row = Tables(engine).segment(job_id, "a")
    with transaction(engine) as rival:
        lock(rival, "segment_task", row.task_id)
        done = start(claim, engine, (job_id, "a"))
        wait_for_one_behind(engine, rival)
        rival.exec_driver_sql(
            "UPDATE segment_task SET status = 'IN_PROGRESS', attempts = 1, claim_token = gen_random_uuid(),"
            " lease_expires_at = clock_timestamp() + interval '1000 s'"
        )
    (answer,) = done.result()
    assert isinstance(answer, HeldElsewhere)
    assert answer.seconds > 500


@pytest.mark.parametrize(
    ("before", "changes", "status"),
    [
        ("QUEUED", "status = 'IN_PROGRESS', claim_token = gen_random_uuid()", "IN_PROGRESS"),
        ("QUEUED", "status = 'COMPLETED', result_json = '[1]'", "COMPLETED"),
        ("IN_PROGRESS", "claim_token = gen_random_uuid()", "IN_PROGRESS"),
    ],
    ids=["claimed", "completed", "taken over"],
)
def test_a_row_inserted_after_the_locks_is_claimed_only_as_it_was_classified(
    engine: Engine, start: Callable[..., Future[Any]], before: str, changes: str, status: str
) -> None:
    """Its producer commits it while the claim waits for another row, so the claim sees but has not locked it.

    Before the claim can write, a rival has claimed the row, or has even completed it.
    """
    tables = Tables(engine)
    job_id = tables.add_job("known", total=2)
    with transaction(engine) as rival:
        with transaction(engine) as bystander:
            lock(bystander, "segment_task", tables.segment(job_id, "known").task_id)
            done = start(claim, engine, (job_id, "known"), (job_id, "new"))
            wait_for_one_behind(engine, bystander)
            add_segment(engine, job_id, "new")
            tables.set_segment(job_id, "new", status=before)
            rival.exec_driver_sql(f"UPDATE segment_task SET {changes} WHERE segment_id = 'new'")
        wait_for_one_behind(engine, rival)
    known, new = done.result()
    assert isinstance(known, Claimed)
    assert isinstance(new, HeldElsewhere)
    row = tables.segment(job_id, "new")
    assert (row.status, row.attempts, row.lease_expires_at) == (status, 0, None)


# One transaction


def test_a_job_completes_with_its_outbox_row_or_not_at_all(engine: Engine) -> None:
    tables = Tables(engine)
    job_id = tables.add_job("a")
    claims = take(engine, (job_id, "a"))
    before = tables.segment(job_id, "a"), tables.job(job_id)
    run(
        engine,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no room'; END$$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON completion_outbox FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with pytest.raises(TransientError, match="no room"):
        PostgresResults(engine).settle([Completed(claims[0], "[]")])
    assert (tables.segment(job_id, "a"), tables.job(job_id)) == before
    run(engine, "DROP TRIGGER refuse ON completion_outbox")
    assert PostgresResults(engine).settle([Completed(claims[0], "[]")]).announcements
    assert problems(engine) == []


def test_a_bystander_of_a_job_does_not_hold_up_what_ends_nothing(engine: Engine) -> None:
    """Giving back and postponing touch no job, so a stop is not held up by a hot one."""
    tables = Tables(engine)
    job_id = tables.add_job("a")
    claims = take(engine, (job_id, "a"))
    with transaction(engine) as bystander:
        lock(bystander, "root_job", job_id)
        assert PostgresResults(engine).settle([GivenBack(claims[0])]).task_ids == {claims[0].task_id}
        (again,) = take(engine, (job_id, "a"))
    assert PostgresResults(engine).settle([Completed(again, "[]")]).announcements
    assert claim(engine, (job_id, "a")) == [AlreadyCompleted()]


# The sweep: one at a time


def test_a_sweep_leaves_re_sending_to_the_one_that_is_at_it(engine: Engine) -> None:
    tables = Tables(engine)
    job_id = tables.add_job("a")
    tables.travel(3_600)
    outbox = PostgresOutbox(engine)
    with transaction(engine) as other:
        other.exec_driver_sql("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": SWEEP_LOCK})
        assert outbox.mark_for_resending(10) == []
    assert [each.job_id for each in outbox.mark_for_resending(10)] == [job_id]
