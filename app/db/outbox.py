"""The completion outbox and the sweep's statements: what was forgotten is found here.

Invariant: a row is leased before its message is sent and marked by the lease's token after; a segment is marked as
re-sent before its message is. No lock outlives a statement, so none is held while SQS is being talked to.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine

from app.db.postgres import run
from app.db.results import OUTBOX_LEASE_SECONDS
from app.ports import Announcement, UnsentSegment

SWEEP_LOCK: Final = 5_306_093
"""Advisory lock of the statement that looks for segments to re-send: one worker at a time is enough."""

MAX_DOUBLINGS: Final = 10
"""The wait before a re-sending doubles with each one before it, so that a long backlog is not flooded."""

# Not of a job that an operator has reopened since: it announces itself when it completes again.
LEASE_UNSENT: Final = """
UPDATE completion_outbox o
SET lease_token = gen_random_uuid(),
    leased_until = clock_timestamp() + %(lease_seconds)s * interval '1 second'
WHERE o.job_id IN (
    SELECT o.job_id
    FROM completion_outbox o
    JOIN root_job j USING (job_id)
    WHERE o.sent_at IS NULL AND (o.leased_until IS NULL OR o.leased_until < clock_timestamp())
      AND j.status = 'COMPLETED'
      AND (%(job_id)s IS NULL OR o.job_id = %(job_id)s::uuid)
    ORDER BY o.job_id
    LIMIT %(limit)s
    FOR UPDATE OF o SKIP LOCKED
)
RETURNING o.job_id::text, o.manifestation_id, o.lease_token::text
"""

MARK_SENT: Final = """
UPDATE completion_outbox o
SET sent_at = clock_timestamp(), send_count = o.send_count + 1, lease_token = NULL, leased_until = NULL
FROM unnest(%(job_ids)s::uuid[], %(tokens)s::uuid[]) AS w (job_id, token)
WHERE o.job_id = w.job_id AND o.lease_token = w.token
"""

# The counters decide. A job gets here when somebody changed a row by hand, never by the worker's own road.
FINISH_FORGOTTEN: Final = """
WITH due AS (
    SELECT job_id, completed_segments = total_segments AS complete
    FROM root_job
    WHERE status IN ('QUEUED', 'IN_PROGRESS')
      AND total_segments > 0
      AND completed_segments + failed_segments = total_segments
      AND (%(job_id)s IS NULL OR job_id = %(job_id)s::uuid)
    ORDER BY job_id
    FOR UPDATE SKIP LOCKED
)
UPDATE root_job j
SET status = CASE WHEN due.complete THEN 'COMPLETED' ELSE 'FAILED' END, updated_at = clock_timestamp()
FROM due
WHERE j.job_id = due.job_id
RETURNING j.job_id::text, j.status
"""

ADD_MISSING: Final = """
INSERT INTO completion_outbox (job_id, manifestation_id)
SELECT j.job_id, j.manifestation_id
FROM root_job j
WHERE j.status = 'COMPLETED'
  AND j.completed_segments = j.total_segments
  AND (%(job_id)s IS NOT NULL OR j.updated_at > clock_timestamp() - interval '1 day')
  AND (%(job_id)s IS NULL OR j.job_id = %(job_id)s::uuid)
  AND NOT EXISTS (SELECT 1 FROM completion_outbox o WHERE o.job_id = j.job_id)
ON CONFLICT (job_id) DO NOTHING
RETURNING job_id::text
"""

MARK_FOR_RESENDING: Final = """
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(%(sweep_lock)s) AS mine
), due AS (
    SELECT t.task_id
    FROM segment_task t
    JOIN root_job j USING (job_id)
    WHERE (SELECT mine FROM turn)
      AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      AND coalesce(t.last_sent_at, t.created_at) < clock_timestamp() - %(after_seconds)s * interval '1 second'
      AND coalesce(t.last_sent_at, t.created_at) < clock_timestamp()
          - %(after_seconds)s * interval '1 second' * 2 ^ least(t.send_count, %(max_doublings)s)
      AND (t.lease_expires_at IS NULL OR t.lease_expires_at < clock_timestamp())
      AND (t.retry_at IS NULL OR t.retry_at < clock_timestamp())
      AND j.cancelled_at IS NULL
      AND (%(job_id)s IS NULL OR t.job_id = %(job_id)s::uuid)
    ORDER BY coalesce(t.last_sent_at, t.created_at)
    LIMIT %(limit)s
    FOR UPDATE OF t SKIP LOCKED
)
UPDATE segment_task t
SET last_sent_at = clock_timestamp(), send_count = t.send_count + 1
FROM due, root_job j
WHERE t.task_id = due.task_id AND j.job_id = t.job_id
RETURNING t.task_id::text, t.job_id::text, j.manifestation_id, t.segment_id, t.span_start, t.span_end
"""

STORE_SPANS: Final = """
UPDATE segment_task t
SET span_start = w.span_start, span_end = w.span_end
FROM unnest(%(task_ids)s::uuid[], %(starts)s::bigint[], %(ends)s::bigint[]) AS w (task_id, span_start, span_end)
WHERE t.task_id = w.task_id AND t.span_start IS NULL
"""


class PostgresOutbox:
    """The outbox and the sweep on PostgreSQL; each method is one transaction and may raise `OutageError`.

    With `job_id` a method looks at that job only.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def lease_unsent(self, limit: int, job_id: str | None = None) -> list[Announcement]:
        """Completion messages that nobody is sending, leased to the caller."""
        parameters = {"limit": limit, "lease_seconds": OUTBOX_LEASE_SECONDS, "job_id": job_id}
        return [Announcement(*row) for row in run(self._engine, LEASE_UNSENT, parameters)]

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        """They are on the queue; a row that somebody else has leased since is left to them."""
        parameters = {
            "job_ids": [announcement.job_id for announcement in announcements],
            "tokens": [announcement.token for announcement in announcements],
        }
        run(self._engine, MARK_SENT, parameters)

    def finish_forgotten(self, job_id: str | None = None) -> list[tuple[str, str]]:
        """Give jobs whose counters say that they have ended their status; (job id, status) of each."""
        return [(row[0], row[1]) for row in run(self._engine, FINISH_FORGOTTEN, {"job_id": job_id})]

    def add_missing(self, job_id: str | None = None) -> list[str]:
        """Make the outbox row of COMPLETED jobs that have none; their ids."""
        return [row[0] for row in run(self._engine, ADD_MISSING, {"job_id": job_id})]

    def mark_for_resending(self, limit: int, job_id: str | None, after_seconds: float) -> list[UnsentSegment]:
        """Unfinished segments that nobody will otherwise work on, marked as sent now; send them."""
        parameters = {
            "limit": limit,
            "job_id": job_id,
            "after_seconds": after_seconds,
            "max_doublings": MAX_DOUBLINGS,
            "sweep_lock": SWEEP_LOCK,
        }
        return [UnsentSegment(*row) for row in run(self._engine, MARK_FOR_RESENDING, parameters)]

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments whose producer gave none."""
        parameters = {
            "task_ids": [span[0] for span in spans],
            "starts": [span[1] for span in spans],
            "ends": [span[2] for span in spans],
        }
        run(self._engine, STORE_SPANS, parameters)
