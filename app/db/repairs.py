"""The SQL of an operator's hand: retry, cancel, and finding and repairing jobs that contradict their rows.

Invariant: rows and the counters of their job change in the same transaction, segments locked by task_id before the
job (docs/formats.md); and each statement may be repeated, since it depends on the state that it finds.
"""

from typing import Any, Final

from app.core.jobs import Drift, Miscount, Outlook
from app.db.outbox import MAX_DOUBLINGS, OLDER
from app.db.postgres import Database, run

# The tables' triggers do the rest: attempts 0, the error gone, counted back, fresh_since moved to now. The
# job is touched after the segments, as everywhere.
REQUEUE_FAILED: Final = """
WITH due AS MATERIALIZED (
    SELECT task_id FROM segment_task
    WHERE job_id = %(job_id)s::uuid AND status = 'FAILED'
    ORDER BY task_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE
), requeued AS (
    UPDATE segment_task t
    SET status = 'QUEUED', last_sent_at = NULL
    FROM due
    WHERE t.task_id = due.task_id
    RETURNING 1
), counted AS MATERIALIZED (
    SELECT count(*) AS requeued FROM requeued
), allowed AS (
    UPDATE root_job j
    SET cancelled_at = NULL, updated_at = clock_timestamp()
    FROM counted
    WHERE j.job_id = %(job_id)s::uuid AND j.cancelled_at IS NOT NULL AND counted.requeued >= 0
)
SELECT requeued FROM counted
"""

# FAILED rows are locked too: a redriven message that is just reviving one has either done so before the rows are
# looked at, or sees the cancellation. A running claimant writes nothing any more: its token is gone. Whatever its
# total_segments, a job can be ended; only one whose rows are all COMPLETED, told so or not, is left as it is.
CANCEL: Final = """
SELECT count(*) FROM (
    SELECT 1 FROM segment_task
    WHERE job_id = %(job_id)s::uuid AND status <> 'COMPLETED'
    ORDER BY task_id
    FOR NO KEY UPDATE
) AS locked;

SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR NO KEY UPDATE;

WITH job AS MATERIALIZED (
    SELECT job_id FROM root_job
    WHERE job_id = %(job_id)s::uuid
      AND status <> 'COMPLETED'
      AND (completed_segments < greatest(total_segments, 1)
           OR EXISTS (
               SELECT 1 FROM segment_task t
               WHERE t.job_id = %(job_id)s::uuid AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING', 'FAILED')
           ))
), ended AS (
    UPDATE segment_task t
    SET status = 'FAILED',
        error_message = 'cancelled',
        failed_at = clock_timestamp(),
        retry_at = NULL,
        claim_token = NULL,
        claimed_by = NULL,
        lease_expires_at = NULL,
        updated_at = clock_timestamp()
    FROM job
    WHERE t.job_id = job.job_id AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
    RETURNING 1
), counted AS (
    SELECT count(*) AS failed FROM ended
)
UPDATE root_job j
SET cancelled_at = coalesce(j.cancelled_at, clock_timestamp()),
    failed_segments = j.failed_segments + counted.failed,
    status = 'FAILED',
    updated_at = clock_timestamp()
FROM counted, job
WHERE j.job_id = job.job_id
RETURNING counted.failed
"""

# `j` is the job and `r` what its rows say. A job that has ended before its rows is a difference, too. More rows than
# total_segments says are none: they end, and the job with them.
DIFFERS: Final = """(
    j.completed_segments <> r.completed
    OR j.failed_segments <> r.failed
    OR j.status = 'COMPLETED' AND (r.completed < j.total_segments OR r.unfinished > 0)
    OR j.status = 'FAILED' AND j.cancelled_at IS NULL
       AND (r.completed + r.failed < j.total_segments OR r.unfinished > 0 OR r.failed = 0)
)"""

COUNTS: Final = """count(*) FILTER (WHERE t.status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE t.status = 'FAILED') AS failed,
           count(*) FILTER (WHERE t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')) AS unfinished"""

# One statement sees one moment, and in every moment the counters equal the rows: finding a lie needs no lock.
FIND_DRIFT: Final = f"""
SELECT j.job_id::text, j.status, j.total_segments, j.completed_segments, j.failed_segments,
       r.completed, r.failed
FROM root_job j
CROSS JOIN LATERAL (
    SELECT {COUNTS}
    FROM segment_task t
    WHERE t.job_id = j.job_id
) AS r
WHERE CASE WHEN %(job_id)s IS NULL
           THEN j.status IN ('QUEUED', 'IN_PROGRESS') OR j.updated_at > clock_timestamp() - interval '1 day'
           ELSE j.job_id = %(job_id)s::uuid
      END
  AND {DIFFERS}
ORDER BY j.job_id
"""  # noqa: S608  (a constant of ours)

# The job's lock keeps every counting transaction out; the statement after it sees those before it whole.
# Whether the job has now ended is left to the sweep's own statement, which knows about completion messages.
REPAIR: Final = f"""
SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR NO KEY UPDATE;

WITH r AS (
    SELECT {COUNTS}
    FROM segment_task t
    WHERE t.job_id = %(job_id)s::uuid
)
UPDATE root_job j
SET completed_segments = r.completed,
    failed_segments = r.failed,
    status = CASE WHEN j.cancelled_at IS NULL THEN 'IN_PROGRESS' ELSE 'FAILED' END,
    updated_at = clock_timestamp()
FROM r
WHERE j.job_id = %(job_id)s::uuid
  AND {DIFFERS}
RETURNING j.job_id
"""  # noqa: S608  (a constant of ours)

# Without a job only those that have not ended: a job that has can wait for its operator.
FIND_MISCOUNTED: Final = """
SELECT j.job_id::text, j.status, j.total_segments, r.counted
FROM root_job j
CROSS JOIN LATERAL (SELECT count(*) AS counted FROM segment_task t WHERE t.job_id = j.job_id) AS r
WHERE CASE WHEN %(job_id)s IS NULL
           THEN j.status IN ('QUEUED', 'IN_PROGRESS')
           ELSE j.job_id = %(job_id)s::uuid
      END
  AND (r.counted <> j.total_segments OR r.counted = 0)
ORDER BY j.job_id
"""

# Each unfinished segment is in exactly one state; `quiet`: its last message is young enough to be on its way.
LOOK_AHEAD: Final = f"""
SELECT count(*),
       count(*) FILTER (WHERE s.state = 'held'),
       max(t.lease_expires_at) FILTER (WHERE s.state = 'held'),
       count(*) FILTER (WHERE s.state = 'waiting'),
       max(t.retry_at) FILTER (WHERE s.state = 'waiting'),
       count(*) FILTER (WHERE s.state = 'quiet'),
       min(t.next_send_at) FILTER (WHERE s.state = 'quiet'),
       count(*) FILTER (WHERE s.state = 'due')
FROM segment_task t
JOIN root_job j USING (job_id)
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN t.lease_expires_at >= statement_timestamp() THEN 'held'
        WHEN t.retry_at >= statement_timestamp() THEN 'waiting'
        WHEN {OLDER} THEN 'due'
        ELSE 'quiet'
    END AS state
) AS s
WHERE t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
  AND j.cancelled_at IS NULL
  AND (%(job_id)s IS NULL OR t.job_id = %(job_id)s::uuid)
"""  # noqa: S608  (constants of ours)


class PostgresRepairs:
    """An operator's hand on jobs. Each method is one transaction and may raise `OutageError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def requeue_failed(self, job_id: str, limit: int) -> int:
        """Send up to `limit` FAILED segments back to QUEUED, unsent, and lift a cancellation; how many."""
        return self._count(REQUEUE_FAILED, job_id=job_id, limit=limit)

    def cancel(self, job_id: str) -> int | None:
        """End what is unfinished; how many segments. None: there is no such job, or it is COMPLETED."""
        rows = run(self._database, CANCEL, {"job_id": job_id})
        return int(rows[0][0]) if rows else None

    def find_drift(self, job_id: str | None) -> list[Drift]:
        """Jobs that contradict their rows; without `job_id` only the unfinished and the last day's."""
        rows: list[Any] = list(run(self._database, FIND_DRIFT, {"job_id": job_id}))
        return [Drift(*row) for row in rows]

    def repair(self, job_id: str) -> bool:
        """Count the job's rows again under its lock; whether anything was different."""
        return bool(run(self._database, REPAIR, {"job_id": job_id}))

    def find_miscounted(self, job_id: str | None) -> list[Miscount]:
        """Jobs with no rows, or others than `total_segments` says; without `job_id` only those that have not ended."""
        rows: list[Any] = list(run(self._database, FIND_MISCOUNTED, {"job_id": job_id}))
        return [Miscount(*row) for row in rows]

    def look_ahead(self, job_id: str | None, after_seconds: float) -> Outlook:
        """What each unfinished segment waits for; a message counts as young for `after_seconds`, doubled."""
        parameters = {"job_id": job_id, "after_seconds": after_seconds, "max_doublings": MAX_DOUBLINGS}
        row: Any = run(self._database, LOOK_AHEAD, parameters)[0]
        return Outlook(*row)

    def _count(self, sql: str, **parameters: Any) -> int:
        return int(run(self._database, sql, parameters)[0][0])
