"""How far the work is behind: the oldest unfinished job, and the completions whose message is not sent.

Invariant: it only looks, by partial and status indexes, so that asking every quarter of a minute costs next to nothing
however many jobs there were.
"""

from typing import Final

from app.core.lag import Lag, OldestJob
from app.db.postgres import Database, run

OLDEST_UNFINISHED: Final = """
SELECT job_id::text, manifestation_id, extract(epoch FROM clock_timestamp() - created_at)::float8
FROM root_job
WHERE status IN ('QUEUED', 'IN_PROGRESS') AND cancelled_at IS NULL
ORDER BY created_at, job_id
LIMIT 1
"""

# Since its job has completed: the outbox row of a job that was reopened keeps the time of its first completion.
UNSENT: Final = """
SELECT count(*)::int, coalesce(extract(epoch FROM clock_timestamp() - min(j.updated_at)), 0)::float8
FROM completion_outbox o
JOIN root_job j USING (job_id)
WHERE o.sent_at IS NULL AND j.status = 'COMPLETED'
"""


class PostgresLag:
    """Asks PostgreSQL; two transactions, each of which may raise `OutageError` or `TransientError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> Lag:
        """How far the work is behind now, on PostgreSQL's clock."""
        ((unsent, unsent_seconds),) = run(self._database, UNSENT)
        oldest = next((OldestJob(*row) for row in run(self._database, OLDEST_UNFINISHED)), None)
        return Lag(oldest, unsent, max(0.0, unsent_seconds))
