"""The SQL of the pages beside `app.db.views`: how many of which status, who works, since when work waits.

Invariant: it only reads, and no statement gives more rows than it is asked for.
"""

from typing import Final

from sqlalchemy import Engine

from app.core.overview import SeenWorker, Speed
from app.db.postgres import run

RECENT_SECONDS: Final = 60.0

COUNT_JOBS: Final = "SELECT status, count(*) FROM root_job GROUP BY status"

COUNT_SEGMENTS: Final = """
SELECT status, count(*), count(*) FILTER (WHERE status = 'QUEUED' AND last_sent_at IS NULL),
       count(*) FILTER (WHERE status IN ('COMPLETED', 'FAILED')
                          AND updated_at > statement_timestamp() - %(seconds)s * interval '1 second')
FROM segment_task
WHERE job_id = %(job_id)s::uuid
GROUP BY status
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

    def count_jobs(self) -> dict[str, int]:
        """How many jobs have which status."""
        return dict(run(self._engine, COUNT_JOBS))

    def count_segments(self, job_id: str) -> tuple[dict[str, int], int, Speed]:
        """How many of the job's segments have which status; those never sent; the speed of the last minute."""
        rows = run(self._engine, COUNT_SEGMENTS, {"job_id": job_id, "seconds": RECENT_SECONDS})
        recent = Speed(sum(row[3] for row in rows), RECENT_SECONDS)
        return {row[0]: row[1] for row in rows}, sum(row[2] for row in rows), recent

    def list_workers(self, limit: int) -> list[SeenWorker]:
        """Who holds segments, those heard of last first."""
        return [SeenWorker(*row) for row in run(self._engine, SEEN_WORKERS, {"limit": limit})]

    def ages(self) -> tuple[float | None, float | None]:
        """Seconds since the oldest unfinished job, and since the oldest unsent completion was made; None without."""
        job, completion = run(self._engine, OLDEST)[0]
        return job, completion
