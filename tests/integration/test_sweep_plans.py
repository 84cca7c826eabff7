"""The sweep costs nothing when nothing is due: PostgreSQL's own plans, with rows enough for it to choose by."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.db import outbox
from app.db.postgres import run
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.tables import migrated_database

JOBS, SEGMENTS = 400, 50
PARAMETERS: dict[str, Any] = {
    **outbox._WAITS,
    "limit": 100,
    "job_id": None,
    "after_seconds": None,
    "most_looked_at": outbox.MOST_LOOKED_AT,
    "sweep_lock": outbox.SWEEP_LOCK,
    "lease_seconds": 30,
}


@pytest.fixture(scope="module")
def full(stack: Stack, template_database: str) -> Iterator[Engine]:
    """Many finished jobs and a few hundred at work, all sent lately, so that nothing is due."""
    with migrated_database(stack, template_database, "sweep_plans") as engine:
        run(
            engine,
            """INSERT INTO root_job (manifestation_id, total_segments, completed_segments, status)
            SELECT 'm', %(segments)s, CASE WHEN n %% 20 = 0 THEN 0 ELSE %(segments)s END,
                   CASE WHEN n %% 20 = 0 THEN 'IN_PROGRESS' ELSE 'COMPLETED' END
            FROM generate_series(1, %(jobs)s) AS n (n);
            INSERT INTO completion_outbox (job_id, manifestation_id, sent_at)
            SELECT job_id, 'm', now() FROM root_job WHERE status = 'COMPLETED';
            INSERT INTO segment_task (job_id, segment_id, status, span_start, span_end)
            SELECT j.job_id, 's' || n, CASE j.status WHEN 'COMPLETED' THEN 'COMPLETED' ELSE 'QUEUED' END, 0, 9
            FROM root_job j, generate_series(1, %(segments)s) AS n (n)""",
            {"jobs": JOBS, "segments": SEGMENTS},
        )
        run(engine, "ANALYZE")
        yield engine


def plan(engine: Engine, sql: str) -> str:
    """The plan, and how many rows each step of it really gave."""
    with engine.connect() as connection, connection.begin():
        rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {sql}", PARAMETERS)
        return "\n".join(row[0] for row in rows)


def test_what_is_due_is_looked_up_in_an_index(full: Engine) -> None:
    shown = plan(full, outbox.MARK_DUE)
    assert "segment_task_unfinished_by_next_sending" in shown
    assert "Index Cond: (next_send_at <= statement_timestamp())" in shown
    assert "Rows Removed" not in shown, shown
    assert "Seq Scan" not in shown, shown


def test_of_jobs_only_the_unfinished_are_looked_at(full: Engine) -> None:
    shown = plan(full, outbox.FIND_FORGOTTEN)
    assert "root_job_status" in shown
    assert "segment_task" not in shown
    assert f"Rows Removed by Filter: {JOBS // 20}\n" in shown


def test_completions_to_send_are_looked_up_in_an_index(full: Engine) -> None:
    shown = plan(full, outbox.LEASE_UNSENT)
    assert "completion_outbox_unsent" in shown
    assert "Rows Removed" not in shown, shown
