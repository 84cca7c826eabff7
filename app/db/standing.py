"""The SQL that looks at one job closely: why it does not get on, and which job a short id means.

Invariant: it only reads, and each statement sees one moment.
"""

from typing import Any, Final

from app.core.jobs import SEGMENT_STATUSES
from app.core.overview import Speed
from app.core.standing import Holder, LastError, Standing
from app.db.postgres import Database, run

RATE_SECONDS: Final = 60.0
"""The rate is that of the segments that ended in the last so many seconds."""
MOST_HOLDERS: Final = 10
MOST_CANDIDATES: Final = 10

# A rate is told from the first ending on, when that is younger than the window, and never from less than a second.
STANDING: Final = """
WITH looked_at AS MATERIALIZED (
    SELECT t.segment_id, t.status, t.claimed_by, t.lease_expires_at, t.retry_at, t.next_send_at, t.updated_at,
           CASE WHEN t.status IN ('RETRYING', 'FAILED') THEN t.error_message END AS error,
           CASE WHEN t.status IN ('COMPLETED', 'FAILED') THEN 'ended'
                WHEN t.lease_expires_at >= statement_timestamp() THEN 'held'
                WHEN t.retry_at >= statement_timestamp() THEN 'retrying'
                WHEN t.status = 'QUEUED' AND t.last_sent_at IS NULL THEN 'unsent'
                WHEN t.status = 'IN_PROGRESS' THEN 'abandoned'
                ELSE 'sent'
           END AS state
    FROM segment_task t
    WHERE t.job_id = %(job_id)s::uuid
), holders AS (
    SELECT coalesce(claimed_by, '?') AS worker, count(*) AS segments, max(lease_expires_at) AS until
    FROM looked_at WHERE state = 'held'
    GROUP BY claimed_by ORDER BY segments DESC, worker LIMIT %(most_holders)s
), last_error AS (
    SELECT segment_id, status, error, updated_at AS at
    FROM looked_at WHERE error IS NOT NULL
    ORDER BY updated_at DESC, segment_id LIMIT 1
), by_status AS (
    SELECT status, count(*) AS rows FROM looked_at GROUP BY status
), lately AS (
    SELECT greatest(1, least(%(rate_seconds)s,
               extract(epoch FROM statement_timestamp() - min(updated_at))))::float8 AS seconds
    FROM looked_at WHERE state = 'ended'
)
SELECT (SELECT array_agg(status) FROM by_status) AS statuses,
       (SELECT array_agg(rows) FROM by_status) AS counts,
       count(*) FILTER (WHERE state = 'held') AS held,
       (SELECT array_agg(worker) FROM holders) AS workers,
       (SELECT array_agg(segments) FROM holders) AS held_segments,
       (SELECT array_agg(until) FROM holders) AS held_until,
       count(*) FILTER (WHERE state = 'retrying') AS retrying,
       min(retry_at) FILTER (WHERE state = 'retrying') AS retry_first_at,
       max(retry_at) FILTER (WHERE state = 'retrying') AS retry_last_at,
       count(*) FILTER (WHERE state = 'unsent') AS unsent,
       count(*) FILTER (WHERE state = 'abandoned') AS abandoned,
       count(*) FILTER (WHERE state = 'sent') AS sent,
       min(next_send_at) FILTER (WHERE state IN ('unsent', 'abandoned', 'sent')) AS resend_from,
       (SELECT segment_id FROM last_error) AS error_segment_id,
       (SELECT status FROM last_error) AS error_status,
       (SELECT error FROM last_error) AS error,
       (SELECT at FROM last_error) AS error_at,
       count(*) FILTER (WHERE state = 'ended' AND updated_at >= statement_timestamp()
                              - (SELECT seconds FROM lately) * interval '1 second') AS ended_lately,
       coalesce((SELECT seconds FROM lately), 1) AS lately_seconds
FROM looked_at
"""

# The bounds of all UUIDs that begin so: they are compared byte by byte, as their text is, and the key's index serves.
FIND_IDS: Final = """
SELECT job_id::text FROM root_job
WHERE job_id BETWEEN %(first)s::uuid AND %(last)s::uuid
ORDER BY job_id
LIMIT %(limit)s
"""


class PostgresStandings:
    """Each method is one transaction and may raise `OutageError` or `TransientError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look_at(self, job_id: str) -> Standing:
        """Where the job stands; all is 0 when there is no such job."""
        parameters = {"job_id": job_id, "most_holders": MOST_HOLDERS, "rate_seconds": RATE_SECONDS}
        row: Any = run(self._database, STANDING, parameters)[0]
        counts = dict(zip(row.statuses or (), row.counts or (), strict=True))
        holders = zip(row.workers or (), row.held_segments or (), row.held_until or (), strict=True)
        error = None
        if row.error is not None:
            error = LastError(row.error_segment_id, row.error_status, row.error, row.error_at)
        return Standing(
            rows={status: counts.get(status, 0) for status in SEGMENT_STATUSES},
            held=row.held,
            held_by=tuple(Holder(*each) for each in holders),
            retrying=row.retrying,
            retry_first_at=row.retry_first_at,
            retry_last_at=row.retry_last_at,
            unsent=row.unsent,
            abandoned=row.abandoned,
            sent=row.sent,
            resend_from=row.resend_from,
            last_error=error,
            lately=Speed(row.ended_lately, row.lately_seconds),
        )

    def find_ids(self, prefix: str) -> list[str]:
        """Ids of jobs whose hexadecimal digits begin with `prefix` (without hyphens), at most `MOST_CANDIDATES`."""
        parameters = {"first": prefix.ljust(32, "0"), "last": prefix.ljust(32, "f"), "limit": MOST_CANDIDATES}
        return [row[0] for row in run(self._database, FIND_IDS, parameters)]
