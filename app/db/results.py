"""How segments end: results, failures, retries and returns, with the job's counters, in one transaction a batch.

Invariant: only rows whose token still stands are changed and only those are counted; the job's status is derived in
the UPDATE that changes its counters, on the locked row, never by counting segments (shared/spec/lifecycle.md,
"Finish, fail, give back"). Segments are locked by task_id, then jobs by job_id.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never

from sqlalchemy import Engine

from app.db.prepared import Prepared
from app.ports import Announcement, Completed, Ending, Failed, GivenBack, Postponed, Settled

OUTBOX_LEASE_SECONDS: Final = 30
"""How long the finisher has to send the completion message before a sweep may."""

SETTLE: Final = """
SELECT 1
FROM segment_task t
JOIN unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[]) AS w (task_id, token)
  ON t.task_id = w.task_id AND t.claim_token = w.token
ORDER BY t.task_id
FOR UPDATE OF t;

SELECT 1 FROM root_job WHERE job_id = ANY(%(ending_jobs)s::uuid[]) ORDER BY job_id FOR UPDATE;

WITH wanted AS MATERIALIZED (
    SELECT *
    FROM unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[], %(statuses)s::text[], %(results)s::text[],
                %(errors)s::text[], %(waits)s::float8[])
         AS w (task_id, token, status, result, error, wait_seconds)
), settled AS (
    UPDATE segment_task t
    SET status = w.status,
        result_json = w.result::jsonb,
        error_message = w.error,
        attempts = CASE w.status WHEN 'QUEUED' THEN greatest(t.attempts - 1, 0) ELSE t.attempts END,
        retry_at = clock_timestamp() + w.wait_seconds * interval '1 second',
        failed_at = CASE w.status WHEN 'FAILED' THEN clock_timestamp() END,
        claim_token = NULL,
        claimed_by = NULL,
        lease_expires_at = NULL,
        updated_at = clock_timestamp()
    FROM wanted w
    WHERE t.task_id = w.task_id AND t.claim_token = w.token AND t.status = 'IN_PROGRESS'
    RETURNING t.task_id, t.job_id, t.status
), counted AS (
    SELECT job_id,
           count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE status = 'FAILED') AS failed
    FROM settled
    WHERE status IN ('COMPLETED', 'FAILED')
    GROUP BY job_id
), jobs AS (
    UPDATE root_job j
    SET completed_segments = j.completed_segments + c.completed,
        failed_segments = j.failed_segments + c.failed,
        status = CASE
            WHEN j.completed_segments + c.completed = j.total_segments THEN 'COMPLETED'
            WHEN j.completed_segments + j.failed_segments + c.completed + c.failed = j.total_segments THEN 'FAILED'
            ELSE 'IN_PROGRESS'
        END,
        updated_at = clock_timestamp()
    FROM counted c
    WHERE j.job_id = c.job_id
    RETURNING j.job_id, j.manifestation_id, j.status
), announced AS (
    INSERT INTO completion_outbox AS o (job_id, manifestation_id, lease_token, leased_until)
    SELECT job_id, manifestation_id, gen_random_uuid(),
           clock_timestamp() + %(outbox_lease_seconds)s * interval '1 second'
    FROM jobs
    WHERE status = 'COMPLETED'
    ON CONFLICT (job_id) DO UPDATE
    SET sent_at = NULL, lease_token = excluded.lease_token, leased_until = excluded.leased_until
    RETURNING o.job_id, o.manifestation_id, o.lease_token
)
SELECT s.task_id::text, a.job_id::text, a.manifestation_id, a.lease_token::text
FROM settled s
LEFT JOIN announced a USING (job_id)
"""

_SETTLE: Final = Prepared(SETTLE)


class PostgresResults:
    """`ResultStore` on PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def settle(self, endings: Sequence[Ending]) -> Settled:
        """Write every ending whose token still stands, and count it; one round trip.

        A job that completes here has its outbox row in the same transaction, leased to the caller, who sends it.
        """
        if not endings:
            return Settled(frozenset())
        rows = _SETTLE.run(self._engine, _parameters(endings))
        announcements = {
            row.job_id: Announcement(row.job_id, row.manifestation_id, row.lease_token)
            for row in rows
            if row.job_id is not None
        }
        return Settled(frozenset(row.task_id for row in rows), tuple(announcements.values()))

    def check(self) -> None:
        """See that settling fits the tables, by settling nothing, which plans it for the first real one."""
        _SETTLE.run(self._engine, _parameters([]))


def _parameters(endings: Sequence[Ending]) -> dict[str, Any]:
    columns = [_columns(ending) for ending in endings]
    return {
        "task_ids": [ending.claim.task_id for ending in endings],
        "tokens": [ending.claim.token for ending in endings],
        "statuses": [column[0] for column in columns],
        "results": [column[1] for column in columns],
        "errors": [column[2] for column in columns],
        "waits": [column[3] for column in columns],
        "ending_jobs": sorted({e.claim.job_id for e in endings if isinstance(e, Completed | Failed)}),
        "outbox_lease_seconds": OUTBOX_LEASE_SECONDS,
    }


def _columns(ending: Ending) -> tuple[str, str | None, str | None, float | None]:
    """Status, result, error and seconds to wait."""
    match ending:
        case Completed():
            return "COMPLETED", ending.result_json, None, None
        case Failed():
            return "FAILED", None, ending.error, None
        case Postponed():
            return "RETRYING", None, ending.error, ending.seconds
        case GivenBack():
            return "QUEUED", None, None, None
    assert_never(ending)
