"""The SQL of looking at many jobs, or at a job's many segments, a page at a time.

Invariant: a page costs what it holds, whatever comes before it: each begins after the last row of the one before, by an
index. Nothing here writes.
"""

from datetime import datetime
from typing import Final

from app.core.jobs import Job, SegmentCounts, SegmentState
from app.db.jobs import COLUMNS
from app.db.postgres import Database, run

JOBS: Final = (
    COLUMNS
    + """
WHERE (%(status)s IS NULL OR status = %(status)s)
  AND (%(manifestation_id)s IS NULL OR manifestation_id = %(manifestation_id)s)
  AND (%(job_id)s IS NULL OR (created_at, job_id) < (%(created_at)s::timestamptz, %(job_id)s::uuid))
ORDER BY created_at DESC, job_id DESC
LIMIT %(limit)s
"""
)

# By the index of the unique (job_id, segment_id), whose order is the database's own.
SEGMENTS: Final = """
SELECT segment_id, span_start, span_end, status, attempts, error_message, claimed_by, lease_expires_at, retry_at,
       last_sent_at, failed_at, updated_at
FROM segment_task
WHERE job_id = %(job_id)s::uuid
  AND (%(status)s IS NULL OR status = %(status)s)
  AND (%(after)s IS NULL OR segment_id > %(after)s)
ORDER BY segment_id
LIMIT %(limit)s
"""

COUNTS: Final = """
SELECT count(*) FILTER (WHERE status = 'QUEUED'),
       count(*) FILTER (WHERE status = 'IN_PROGRESS'),
       count(*) FILTER (WHERE status = 'COMPLETED'),
       count(*) FILTER (WHERE status = 'RETRYING'),
       count(*) FILTER (WHERE status = 'FAILED'),
       count(*) FILTER (WHERE status = 'QUEUED' AND last_sent_at IS NULL)
FROM segment_task
WHERE job_id = %(job_id)s::uuid
"""


class PostgresViews:
    """Pages of jobs and segments on PostgreSQL; each method may raise `OutageError` or `TransientError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_jobs(
        self, limit: int, *, status: str | None, manifestation_id: str | None, after: tuple[datetime, str] | None
    ) -> list[Job]:
        """The newest first; `after`: (created_at, job id) of the last one of the page before."""
        created_at, job_id = after or (None, None)
        parameters = {
            "status": status,
            "manifestation_id": manifestation_id,
            "created_at": created_at,
            "job_id": job_id,
            "limit": limit,
        }
        return [Job(*row) for row in run(self._database, JOBS, parameters)]

    def list_segments(self, job_id: str, limit: int, *, status: str | None, after: str | None) -> list[SegmentState]:
        """By segment_id; `after`: that of the last one of the page before."""
        parameters = {"job_id": job_id, "status": status, "after": after, "limit": limit}
        return [SegmentState(*row) for row in run(self._database, SEGMENTS, parameters)]

    def count_segments(self, job_id: str) -> SegmentCounts:
        """How many of the job's rows have which status."""
        return SegmentCounts(*run(self._database, COUNTS, {"job_id": job_id})[0])
