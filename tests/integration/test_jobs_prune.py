"""`prune` deletes what ended long ago, and nothing else, whatever happens in between."""

from collections.abc import Callable

import pytest

from app.db.postgres import run
from app.db.pruning import PostgresPruning, Pruned
from app.db.repairs import PostgresRepairs
from app.errors import OutageError
from app.jobs import pruning
from tests.support.commands import Command
from tests.support.engine import Engine
from tests.support.jobs import assert_true, claimed, complete, fail, make_job, rows, statuses


def age(engine: Engine, job_id: str, days: int = 10) -> None:
    """As if the job had ended so long ago; its completion is announced."""
    run(engine, "UPDATE completion_outbox SET sent_at = now() WHERE job_id = %(job)s::uuid", {"job": job_id})
    run(
        engine,
        "UPDATE root_job SET updated_at = now() - %(days)s * interval '1 day' WHERE job_id = %(job)s::uuid",
        {"job": job_id, "days": days},
    )


def ended(engine: Engine, count: int, failing: int = 0) -> str:
    job_id = make_job(engine, count)
    claims = claimed(engine, job_id, [f"s{at:05}" for at in range(count)])
    if failing:
        fail(engine, claims[:failing])
    if failing < count:
        complete(engine, claims[failing:])
    return job_id


def jobs(engine: Engine) -> set[str]:
    return {row[0] for row in rows(engine, "SELECT job_id::text FROM root_job")}


def test_what_ended_long_ago_goes_and_all_else_stays(command: Command, engine: Engine) -> None:
    old, failed, young = ended(engine, 3), ended(engine, 3, failing=1), ended(engine, 2)
    half, unannounced = make_job(engine, 2), ended(engine, 1)
    complete(engine, claimed(engine, half, ["s00000"]))
    for job_id in (old, failed, half):
        age(engine, job_id)
    age(engine, young, days=6)
    age(engine, unannounced)
    for job_id in (old, young):
        run(engine, f"INSERT INTO idempotency_key (key, manifestation_id, job_id) VALUES ('{job_id}', 'M', '{job_id}')")
    run(engine, f"UPDATE completion_outbox SET sent_at = NULL WHERE job_id = '{unannounced}'")
    ran = command("prune", "--older-than", "7", "--dry-run")
    assert (ran.code, ran.out, ran.err) == (0, "2 jobs with 6 segments would be deleted.\n", "")
    assert len(jobs(engine)) == 5
    ran = command("prune", "--older-than", "7")
    assert (ran.code, ran.out, ran.err) == (0, "2 jobs with 6 segments deleted.\n", "")
    assert jobs(engine) == {young, half, unannounced}
    assert rows(engine, "SELECT count(*) FROM segment_task") == [(5,)]
    assert rows(engine, f"SELECT count(*) FROM completion_outbox WHERE job_id = '{old}'") == [(0,)]
    assert rows(engine, "SELECT key FROM idempotency_key") == [(young,)]
    assert command("prune", "--older-than", "7").out == "0 jobs with 0 segments deleted.\n"
    assert_true(engine)


def test_a_job_that_says_it_has_ended_before_its_rows_stays(command: Command, engine: Engine) -> None:
    job_id = make_job(engine, 2)
    run(engine, "UPDATE root_job SET status = 'FAILED'")
    age(engine, job_id)
    assert command("prune", "--older-than", "1").out == "0 jobs with 0 segments deleted.\n"
    assert statuses(engine, job_id) == {"QUEUED": 2}


@pytest.mark.parametrize(("count", "failing"), [(6, 0), (7, 0), (6, 2), (5, 5)])
def test_after_each_transaction_the_counters_are_true(engine: Engine, count: int, failing: int) -> None:
    job_id = ended(engine, count, failing)
    age(engine, job_id)
    store, deleted = PostgresPruning(engine), 0
    while job_id in jobs(engine):
        pruned = store.prune(job_id, 7, 2)
        assert pruned is not None
        deleted += pruned.segments
        assert_true(engine)
        assert PostgresRepairs(engine).find_drift(job_id) == []
    assert deleted == count
    assert store.prune(job_id, 7, 2) is None


def test_one_that_is_cut_short_is_gone_on_with(
    command: Command, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ended(engine, 5)
    age(engine, job_id)
    monkeypatch.setattr(pruning, "CHUNK_SEGMENTS", 2)
    prune, calls = PostgresPruning.prune, 0

    def cut(store: PostgresPruning, job: str, days: float, limit: int) -> Pruned | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OutageError("PostgreSQL", "gone")
        return prune(store, job, days, limit)

    with monkeypatch.context() as broken:
        broken.setattr(PostgresPruning, "prune", cut)
        ran = command("prune", "--older-than", "7")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("0 jobs with 2 segments deleted before that; the same command deletes the rest.\n")
    assert_true(engine)
    assert command("prune", "--older-than", "7").out == "1 job with 3 segments deleted.\n"
    assert jobs(engine) == set()


def test_a_job_that_is_retried_meanwhile_stays(engine: Engine) -> None:
    job_id = ended(engine, 3, failing=2)
    age(engine, job_id)
    store = PostgresPruning(engine)
    assert store.prune(job_id, 7, 1) == Pruned(1, False)
    assert PostgresRepairs(engine).requeue_failed(job_id, 10) == 2
    assert store.prune(job_id, 7, 1) is None
    assert statuses(engine, job_id) == {"QUEUED": 2}
    complete(engine, claimed(engine, job_id, ["s00000", "s00001"]))
    assert rows(engine, "SELECT status, total_segments, completed_segments FROM root_job") == [("COMPLETED", 2, 2)]


@pytest.mark.parametrize("days", ["-1", "nan", "soon", "1e9", ""])
def test_days_that_make_no_sense_are_a_usage_error(
    command: Callable[..., object], days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended_:
        command("prune", f"--older-than={days}")
    assert ended_.value.code == 2
    assert "must be a number of days" in capsys.readouterr().err
