"""The SQL of the pages beside `app.db.views`: how many of which status, who works, since when work waits.

Invariant: it only reads, and no statement gives more rows than it is asked for.
"""

from typing import Final

from app.core.overview import SeenWorker
from app.db.postgres import Database, run

COUNT_JOBS: Final = "SELECT status, count(*) FROM root_job GROUP BY status"

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

    def __init__(self, database: Database) -> None:
        self._database = database

    def count_jobs(self) -> dict[str, int]:
        """How many jobs have which status."""
        return dict(run(self._database, COUNT_JOBS))

    def list_workers(self, limit: int) -> list[SeenWorker]:
        """Who holds segments, those heard of last first."""
        return [SeenWorker(*row) for row in run(self._database, SEEN_WORKERS, {"limit": limit})]

    def ages(self) -> tuple[float | None, float | None]:
        """Seconds since the oldest unfinished job, and since the oldest unsent completion was made; None without."""
        job, completion = run(self._database, OLDEST)[0]
        return job, completion
