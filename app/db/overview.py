"""The SQL of the pages: jobs a page at a time, a job's segments by status, who works.

Invariant: it only reads, and no statement gives more rows than it is asked for.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from app.core.jobs import Job
from app.core.overview import Pace, PacedJob, SeenWorker, SegmentState
from app.db.postgres import run

RECENT_SECONDS: Final = 60.0

# The job's row alone tells its pace: counting the rows of every job that is shown would read millions of them.
LIST_JOBS: Final = """
SELECT job_id::text, manifestation_id, total_segments, completed_segments, failed_segments, status,
       created_at, updated_at, cancelled_at,
       completed_segments + failed_segments AS ended,
       extract(epoch FROM updated_at - created_at)::float8 AS seconds
FROM root_job
WHERE (%(status)s IS NULL OR status = %(status)s)
  AND (%(before)s IS NULL OR (created_at, job_id) < (%(before)s::timestamptz, %(before_id)s::uuid))
ORDER BY created_at DESC, job_id DESC
LIMIT %(limit)s
"""

COUNT_JOBS: Final = "SELECT status, count(*) FROM root_job GROUP BY status"

COUNT_SEGMENTS: Final = """
SELECT status, count(*), count(*) FILTER (WHERE status = 'QUEUED' AND last_sent_at IS NULL),
       count(*) FILTER (WHERE status IN ('COMPLETED', 'FAILED')
                          AND updated_at > statement_timestamp() - %(seconds)s * interval '1 second')
FROM segment_task
WHERE job_id = %(job_id)s::uuid
GROUP BY status
"""

LIST_SEGMENTS: Final = """
SELECT segment_id, span_start, span_end, status, attempts, error_message, failed_at, retry_at, claimed_by,
       lease_expires_at, last_sent_at
FROM segment_task
WHERE job_id = %(job_id)s::uuid
  AND status = %(status)s
  AND (%(after)s IS NULL OR segment_id > %(after)s)
ORDER BY segment_id
LIMIT %(limit)s
"""

# A worker that has nothing in hand has no row. Found by the unfinished jobs, so that those that ended cost nothing.
SEEN_WORKERS: Final = """
SELECT t.claimed_by, count(*), count(DISTINCT t.job_id), min(t.updated_at), max(t.lease_expires_at),
       max(t.lease_expires_at) > statement_timestamp()
FROM segment_task t
JOIN root_job j USING (job_id)
WHERE j.status = 'IN_PROGRESS' AND t.status = 'IN_PROGRESS' AND t.claimed_by IS NOT NULL
GROUP BY t.claimed_by
ORDER BY max(t.lease_expires_at) DESC, t.claimed_by
LIMIT %(limit)s
"""

# What the queues do not tell: since when the oldest unfinished job waits, and the oldest completion that is not sent.
OLDEST: Final = """
SELECT (SELECT extract(epoch FROM statement_timestamp() - min(created_at))::float8 FROM root_job
        WHERE status IN ('QUEUED', 'IN_PROGRESS')),
       (SELECT extract(epoch FROM statement_timestamp() - min(created_at))::float8 FROM completion_outbox
        WHERE sent_at IS NULL)
"""


class PostgresOverview:
    """Each method is one transaction and may raise `OutageError` or `TransientError`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list_jobs(self, status: str | None, before: tuple[datetime, str] | None, limit: int) -> list[PacedJob]:
        """Jobs, the newest first; of one status when it is given; those after `before`, (created_at, job id)."""
        moment, job_id = before or (None, None)
        parameters = {"status": status, "before": moment, "before_id": job_id, "limit": limit}
        return [PacedJob(Job(*row[:9]), Pace(*row[9:])) for row in run(self._engine, LIST_JOBS, parameters)]

    def count_jobs(self) -> dict[str, int]:
        """How many jobs have which status."""
        return dict(run(self._engine, COUNT_JOBS))

    def count_segments(self, job_id: str) -> tuple[dict[str, int], int, Pace]:
        """How many of the job's segments have which status; those never sent; the pace of the last minute."""
        rows = run(self._engine, COUNT_SEGMENTS, {"job_id": job_id, "seconds": RECENT_SECONDS})
        recent = Pace(sum(row[3] for row in rows), RECENT_SECONDS)
        return {row[0]: row[1] for row in rows}, sum(row[2] for row in rows), recent

    def list_segments(self, job_id: str, status: str, after: str | None, limit: int) -> list[SegmentState]:
        """Segments of one status, by id, those after `after`."""
        parameters = {"job_id": job_id, "status": status, "after": after, "limit": limit}
        return [SegmentState(*row) for row in run(self._engine, LIST_SEGMENTS, parameters)]

    def list_workers(self, limit: int) -> list[SeenWorker]:
        """Who holds segments, those heard of last first."""
        return [SeenWorker(*row) for row in run(self._engine, SEEN_WORKERS, {"limit": limit})]

    def ages(self) -> tuple[float | None, float | None]:
        """Seconds since the oldest unfinished job, and since the oldest unsent completion was made; None without."""
        job, completion = run(self._engine, OLDEST)[0]
        return job, completion
