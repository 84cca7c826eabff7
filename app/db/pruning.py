"""The SQL that deletes old jobs, a few segments at a time.

Invariant: only a job that has ended, has no unfinished row and has announced its completion is touched. After each
transaction its counters say what its rows say, so that one that is cut short is a smaller job, and doing it again
does the rest.
"""

from typing import Final, NamedTuple

from app.db.postgres import Database, run

PRUNABLE: Final = """j.status IN ('COMPLETED', 'FAILED')
      AND j.updated_at < statement_timestamp() - %(days)s * interval '1 day'
      AND NOT EXISTS (
          SELECT 1 FROM segment_task t
          WHERE t.job_id = j.job_id AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      )
      AND NOT EXISTS (
          SELECT 1 FROM completion_outbox o
          WHERE o.job_id = j.job_id AND o.sent_at IS NULL AND j.status = 'COMPLETED'
      )"""

FIND: Final = f"""
SELECT j.job_id::text, (SELECT count(*) FROM segment_task t WHERE t.job_id = j.job_id) AS segments
FROM root_job j
WHERE {PRUNABLE}
ORDER BY j.job_id
"""  # noqa: S608  (a constant of ours)

# COMPLETED rows go first, so that what is left of a FAILED job is one. Not sorted: it ends with the first few rows.
CHOSEN: Final = """
    SELECT task_id FROM (
        (SELECT task_id FROM segment_task
         WHERE job_id = (SELECT job_id FROM job) AND status = 'COMPLETED' LIMIT %(limit)s)
        UNION ALL
        (SELECT task_id FROM segment_task
         WHERE job_id = (SELECT job_id FROM job) AND status = 'FAILED' LIMIT %(limit)s)
    ) AS ended
    LIMIT %(limit)s"""

# Segments are locked by task_id, then the job, as everywhere: whoever is just retrying the job has either done so
# before it is looked at again, and it is left alone, or finds what is left. With the last rows the job itself goes.
PRUNE: Final = f"""
WITH job AS MATERIALIZED (
    SELECT %(job_id)s::uuid AS job_id
), chosen AS MATERIALIZED ({CHOSEN}
)
SELECT count(*) FROM (
    SELECT 1 FROM segment_task WHERE task_id IN (SELECT task_id FROM chosen) ORDER BY task_id FOR UPDATE
) AS locked;

SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR UPDATE;

WITH job AS MATERIALIZED (
    SELECT j.job_id FROM root_job j WHERE j.job_id = %(job_id)s::uuid AND {PRUNABLE}
), chosen AS MATERIALIZED ({CHOSEN}
), more AS MATERIALIZED (
    SELECT EXISTS (
        SELECT 1 FROM segment_task WHERE job_id = (SELECT job_id FROM job) OFFSET %(limit)s
    ) AS is_left
), gone AS (
    DELETE FROM segment_task t USING chosen WHERE t.task_id = chosen.task_id RETURNING t.status
), counted AS MATERIALIZED (
    SELECT count(*) AS segments,
           count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE status = 'FAILED') AS failed
    FROM gone
), shrunk AS (
    UPDATE root_job j
    SET total_segments = greatest(0, j.total_segments - c.segments),
        completed_segments = greatest(0, j.completed_segments - c.completed),
        failed_segments = greatest(0, j.failed_segments - c.failed)
    FROM job, more, counted c
    WHERE j.job_id = job.job_id AND more.is_left
), announced AS (
    DELETE FROM completion_outbox o USING job, more WHERE o.job_id = job.job_id AND NOT more.is_left
), forgotten AS (
    DELETE FROM idempotency_key k USING job, more WHERE k.job_id = job.job_id AND NOT more.is_left
), ended AS (
    DELETE FROM root_job j USING job, more WHERE j.job_id = job.job_id AND NOT more.is_left RETURNING 1
)
SELECT c.segments, EXISTS (SELECT 1 FROM ended) AS is_gone
FROM counted c
WHERE EXISTS (SELECT 1 FROM job)
"""  # noqa: S608  (constants of ours)


class Prunable(NamedTuple):
    """A job that may be deleted, and how many rows it has."""

    job_id: str
    segments: int


class Pruned(NamedTuple):
    """What one transaction has deleted."""

    segments: int
    is_gone: bool
    """The job itself, too."""


class PostgresPruning:
    """Each method is one transaction and may raise `OutageError` or `TransientError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, days: float) -> list[Prunable]:
        """Jobs that ended more than `days` ago, with everything about them done."""
        return [Prunable(*row) for row in run(self._database, FIND, {"days": days})]

    def prune(self, job_id: str, days: float, limit: int) -> Pruned | None:
        """Delete up to `limit` segments of the job, with the last of them the job; None: it may not be deleted now."""
        parameters = {"job_id": job_id, "days": days, "limit": limit}
        return next((Pruned(*row) for row in run(self._database, PRUNE, parameters)), None)
