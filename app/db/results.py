"""How segments end: results, failures, retries and returns, with the job's counters, in one transaction a batch.

Invariant: only rows whose token still stands are changed and only those are counted; the job's status is derived from
its counters under its lock (docs/formats.md, "Finish, fail, give back"). Segments are locked by task_id, then
jobs by job_id.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never

from app.core.endings import Announcement, Completed, Ending, Failed, GivenBack, Postponed, Settled, Surplus
from app.db.arrays import plain_array, text_array
from app.db.postgres import Database
from app.db.prepared import Prepared

OUTBOX_LEASE_SECONDS: Final = 30
"""How long the finisher has to send the completion message before a sweep may."""

# The results are stored before the job is locked, so that its other batches wait for an addition and not for those.
# The last statement sees the job as it is under that lock, with all that was counted before: so whether a row is still
# unfinished can be told there, and nowhere earlier. It answers from what was settled by these tokens, so a repeat of a
# call whose reply was lost is answered as the first one; a completion message is leased to the token of the segment
# that completed the job, for the same reason. NOT IN, so that rows are found by their job and not by the index of what
# is unfinished in all jobs.
SETTLE: Final = """
SELECT 1
FROM segment_task t
JOIN unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[]) AS w (task_id, token)
  ON t.task_id = w.task_id AND t.claim_token = w.token
ORDER BY t.task_id
FOR NO KEY UPDATE OF t;

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
        settled_token = w.token,
        claim_token = NULL,
        claimed_by = NULL,
        lease_expires_at = NULL,
        updated_at = clock_timestamp()
    FROM wanted w
    WHERE t.task_id = w.task_id AND t.claim_token = w.token AND t.status = 'IN_PROGRESS'
    RETURNING t.job_id, t.status
), counted AS MATERIALIZED (
    SELECT job_id,
           count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE status = 'FAILED') AS failed
    FROM settled
    WHERE status IN ('COMPLETED', 'FAILED')
    GROUP BY job_id
), locked AS MATERIALIZED (
    SELECT job_id FROM root_job WHERE job_id IN (SELECT job_id FROM counted) ORDER BY job_id FOR NO KEY UPDATE
)
UPDATE root_job j
SET completed_segments = j.completed_segments + c.completed,
    failed_segments = j.failed_segments + c.failed,
    status = CASE j.status WHEN 'COMPLETED' THEN 'COMPLETED' ELSE 'IN_PROGRESS' END,
    updated_at = clock_timestamp()
FROM locked
JOIN counted c USING (job_id)
WHERE j.job_id = locked.job_id;

WITH settled AS MATERIALIZED (
    SELECT t.task_id, t.job_id, t.settled_token AS token
    FROM segment_task t
    JOIN unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[], %(statuses)s::text[]) AS w (task_id, token, status)
      ON t.task_id = w.task_id AND t.settled_token = w.token AND t.status = w.status
), ended AS (
    UPDATE root_job j
    SET status = CASE j.failed_segments WHEN 0 THEN 'COMPLETED' ELSE 'FAILED' END, updated_at = clock_timestamp()
    WHERE j.job_id = ANY(%(ending_jobs)s::uuid[])
      AND j.status = 'IN_PROGRESS'
      AND j.completed_segments + j.failed_segments >= j.total_segments
      AND NOT EXISTS (
          SELECT FROM segment_task t
          WHERE t.job_id = j.job_id AND t.status NOT IN ('COMPLETED', 'FAILED')
      )
    RETURNING j.job_id, j.manifestation_id, j.status, j.total_segments, j.completed_segments + j.failed_segments AS rows
), announced AS (
    INSERT INTO completion_outbox AS o (job_id, manifestation_id, lease_token, leased_until)
    SELECT e.job_id, e.manifestation_id,
           (SELECT s.token FROM settled s WHERE s.job_id = e.job_id ORDER BY s.token LIMIT 1),
           clock_timestamp() + %(outbox_lease_seconds)s * interval '1 second'
    FROM ended e
    WHERE e.status = 'COMPLETED'
    ON CONFLICT (job_id) DO UPDATE
    SET sent_at = NULL, lease_token = excluded.lease_token, leased_until = excluded.leased_until
    RETURNING o.job_id, o.manifestation_id, o.lease_token
), leased AS (
    SELECT * FROM announced
    UNION
    SELECT o.job_id, o.manifestation_id, o.lease_token
    FROM completion_outbox o
    JOIN settled s ON s.job_id = o.job_id AND s.token = o.lease_token
)
SELECT s.task_id::text, a.job_id::text, a.manifestation_id, a.lease_token::text,
       e.job_id::text AS ended_job_id, e.total_segments, e.rows
FROM settled s
LEFT JOIN leased a USING (job_id)
LEFT JOIN ended e USING (job_id)
"""

SETTLE_LOCK_TIMEOUT_MS: Final = 5_000
"""How long a settling waits for a row that somebody has locked: its job's, mostly, for which its batches queue."""

_SETTLE: Final = Prepared(SETTLE)


class PostgresResults:
    """`ResultStore` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, endings: Sequence[Ending]) -> Settled:
        """See `ResultStore`; one round trip.

        A job that completes here has its outbox row in the same transaction, leased to the caller, who sends it.
        """
        if not endings:
            return Settled(frozenset())
        rows = _SETTLE.run(self._database, _parameters(endings), lock_timeout_ms=SETTLE_LOCK_TIMEOUT_MS)
        announcements = {
            row.job_id: Announcement(row.job_id, row.manifestation_id, row.lease_token)
            for row in rows
            if row.job_id is not None
        }
        surpluses = {
            Surplus(row.ended_job_id, row.total_segments, row.rows)
            for row in rows
            if row.ended_job_id is not None and row.rows > row.total_segments
        }
        return Settled(frozenset(row.task_id for row in rows), tuple(announcements.values()), tuple(surpluses))

    def check(self) -> None:
        """See that settling fits the tables, by settling nothing, which plans it for the first real one."""
        _SETTLE.run(self._database, _parameters([]))


def _parameters(endings: Sequence[Ending]) -> dict[str, Any]:
    columns = [_columns(ending) for ending in endings]
    return {
        "task_ids": plain_array(ending.claim.task_id for ending in endings),
        "tokens": plain_array(ending.claim.token for ending in endings),
        "statuses": text_array([column[0] for column in columns]),
        "results": [column[1] for column in columns],
        "errors": [column[2] for column in columns],
        "waits": [column[3] for column in columns],
        "ending_jobs": plain_array({e.claim.job_id for e in endings if isinstance(e, Completed | Failed)}),
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
