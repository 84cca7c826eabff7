"""The SQL of the producer's side: making jobs, keeping track of what was sent, and looking at them.

Invariant: a job and all its segments appear together or not at all; and each statement may be repeated, since it
depends on the state that it finds.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, Final

from app.core.jobs import Job, SegmentRecord
from app.core.unsent import RESEND_AFTER_SECONDS, UnsentSegment
from app.db.outbox import PostgresOutbox
from app.db.postgres import Database, run

RECORDS_PER_QUERY: Final = 100
"""Results are read so many at a time: a result may have hundreds of kilobytes."""

# The caller chooses the job's id, so that a repeat after a cut connection finds the job that it has made.
CREATE: Final = """
INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)
VALUES (%(job_id)s::uuid, %(manifestation_id)s, cardinality(%(segment_ids)s::text[]), 0, 'QUEUED')
ON CONFLICT (job_id) DO NOTHING;

INSERT INTO segment_task (job_id, segment_id, status, span_start, span_end)
SELECT %(job_id)s::uuid, w.segment_id, 'QUEUED', w.span_start, w.span_end
FROM unnest(%(segment_ids)s::text[], %(starts)s::bigint[], %(ends)s::bigint[])
     AS w (segment_id, span_start, span_end)
ON CONFLICT (job_id, segment_id) DO NOTHING
"""

# The same, if the key is new; whoever uses it at the same time waits here for the first. Where it is known, or is a
# moment later, nothing is written. A key and its job are committed together, so that whoever sees a key without its job
# sees one whose job was deleted; asked in a statement of its own, whose snapshot holds both.
CREATE_ONCE: Final = """
DELETE FROM idempotency_key k
WHERE k.key = %(key)s AND NOT EXISTS (SELECT 1 FROM root_job j WHERE j.job_id = k.job_id);

WITH kept AS (
    INSERT INTO idempotency_key (key, manifestation_id, job_id)
    VALUES (%(key)s, %(manifestation_id)s, %(job_id)s::uuid)
    ON CONFLICT (key) DO NOTHING
    RETURNING job_id
), made AS (
    INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)
    SELECT job_id, %(manifestation_id)s, cardinality(%(segment_ids)s::text[]), 0, 'QUEUED' FROM kept
    RETURNING job_id
)
INSERT INTO segment_task (job_id, segment_id, status, span_start, span_end)
SELECT made.job_id, w.segment_id, 'QUEUED', w.span_start, w.span_end
FROM made
CROSS JOIN unnest(%(segment_ids)s::text[], %(starts)s::bigint[], %(ends)s::bigint[])
     AS w (segment_id, span_start, span_end)
"""

FIND_KEY: Final = """
SELECT k.manifestation_id, k.job_id::text
FROM idempotency_key k
JOIN root_job j USING (job_id)
WHERE k.key = %(key)s
"""

COLUMNS: Final = """
SELECT job_id::text, manifestation_id, total_segments, completed_segments, failed_segments, status,
       created_at, updated_at, cancelled_at
FROM root_job
"""

GET: Final = COLUMNS + "WHERE job_id = %(job_id)s::uuid"

LIST: Final = (
    COLUMNS
    + """
WHERE %(status)s IS NULL OR status = %(status)s
ORDER BY created_at DESC, job_id
LIMIT %(limit)s
"""
)

# The newest COMPLETED job of a text or, without one, its newest job.
NEWEST: Final = (
    COLUMNS
    + """
WHERE manifestation_id = %(manifestation_id)s
ORDER BY (status = 'COMPLETED') DESC, created_at DESC, job_id
LIMIT 1
"""
)

# A segment that is or was in somebody's hands had a message: only what is QUEUED and unmarked may have none.
LIST_UNSENT: Final = """
SELECT t.task_id::text, t.job_id::text, j.manifestation_id, t.segment_id, t.span_start, t.span_end
FROM segment_task t
JOIN root_job j USING (job_id)
WHERE t.job_id = %(job_id)s::uuid
  AND t.status = 'QUEUED'
  AND t.last_sent_at IS NULL
  AND j.cancelled_at IS NULL
  AND (%(after)s IS NULL OR t.segment_id > %(after)s)
ORDER BY t.segment_id
LIMIT %(limit)s
"""

# send_count stays: it counts what the sweep had to send again.
MARK_SENT: Final = """
WITH sent AS MATERIALIZED (
    SELECT task_id FROM segment_task
    WHERE task_id = ANY(%(task_ids)s::uuid[])
    ORDER BY task_id
    FOR NO KEY UPDATE
)
UPDATE segment_task t
SET last_sent_at = clock_timestamp(),
    next_send_at = clock_timestamp() + %(resend_after_seconds)s * interval '1 second'
FROM sent
WHERE t.task_id = sent.task_id
"""

# One value of 16 bytes a segment, so that the keys of the largest job are a few megabytes.
LIST_TASKS: Final = """
SELECT string_agg(uuid_send(task_id), ''::bytea ORDER BY span_start NULLS LAST, segment_id COLLATE "C")
FROM segment_task WHERE job_id = %(job_id)s::uuid AND (%(status)s IS NULL OR status = %(status)s)
"""
KEY_BYTES: Final = 16

READ_RECORDS: Final = """
SELECT t.segment_id, t.span_start, t.span_end, t.status, t.result_json::text, t.error_message
FROM unnest(%(task_ids)s::uuid[]) WITH ORDINALITY AS w (task_id, position)
JOIN segment_task t USING (task_id)
ORDER BY w.position
"""


class PostgresJobs:
    """Jobs on PostgreSQL; each method is one transaction and may raise `OutageError` or `TransientError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, job_id: str, manifestation_id: str, segments: Sequence[tuple[str, int, int]]) -> None:
        """Write the job with all its segments, (id, start, end), or nothing. Doing it twice does it once."""
        run(self._database, CREATE, _new_job(job_id, manifestation_id, segments))

    def create_once(
        self, key: str, job_id: str, manifestation_id: str, segments: Sequence[tuple[str, int, int]]
    ) -> None:
        """As `create`, and keep `key` with it; nothing when the key is kept already, with whatever job."""
        run(self._database, CREATE_ONCE, {**_new_job(job_id, manifestation_id, segments), "key": key})

    def find_key(self, key: str) -> tuple[str, str] | None:
        """(manifestation id, job id) that the key is kept with."""
        rows = _rows(self._database, FIND_KEY, {"key": key})
        return (rows[0][0], rows[0][1]) if rows else None

    def get(self, job_id: str) -> Job | None:
        """The job, if there is one."""
        return next(self._jobs(GET, job_id=job_id), None)

    def list_jobs(self, status: str | None, limit: int) -> list[Job]:
        """Jobs, the newest first; of one status when it is given."""
        return list(self._jobs(LIST, status=status, limit=limit))

    def find_newest(self, manifestation_id: str) -> Job | None:
        """The newest COMPLETED job of a manifestation; without one its newest job, whatever its status."""
        return next(self._jobs(NEWEST, manifestation_id=manifestation_id), None)

    def list_unsent(self, job_id: str, after_segment_id: str | None, limit: int) -> list[UnsentSegment]:
        """QUEUED segments for which no message was sent, by segment_id; none of a cancelled job."""
        parameters = {"job_id": job_id, "after": after_segment_id, "limit": limit}
        return [UnsentSegment(*row) for row in _rows(self._database, LIST_UNSENT, parameters)]

    def mark_sent(self, task_ids: Collection[str]) -> None:
        """Their messages are on the queue."""
        parameters = {"task_ids": list(task_ids), "resend_after_seconds": RESEND_AFTER_SECONDS}
        run(self._database, MARK_SENT, parameters)

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments whose producer gave none."""
        PostgresOutbox(self._database).store_spans(spans)

    def read_records(self, job_id: str, status: str | None = None) -> Iterator[SegmentRecord]:
        """Every segment of the job by (start, id), read as they are asked for; memory holds their keys only.

        With `status` those that have it now. No transaction stays open while a slow reader takes its time, so each
        record is true for itself.
        """
        keys = run(self._database, LIST_TASKS, {"job_id": job_id, "status": status})[0][0]
        return self._read_tasks(bytes(keys or b""))

    def _read_tasks(self, keys: bytes) -> Iterator[SegmentRecord]:
        ids = (str(uuid.UUID(bytes=keys[at : at + KEY_BYTES])) for at in range(0, len(keys), KEY_BYTES))
        for chunk in batched(ids, RECORDS_PER_QUERY):
            for row in _rows(self._database, READ_RECORDS, {"task_ids": list(chunk)}):
                yield SegmentRecord(*row)

    def _jobs(self, sql: str, **parameters: Any) -> Iterator[Job]:
        return (Job(*row) for row in _rows(self._database, sql, parameters))


def _new_job(job_id: str, manifestation_id: str, segments: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "manifestation_id": manifestation_id,
        "segment_ids": [segment[0] for segment in segments],
        "starts": [segment[1] for segment in segments],
        "ends": [segment[2] for segment in segments],
    }


def _rows(database: Database, sql: str, parameters: Mapping[str, Any]) -> list[Any]:
    """Rows as plain tuples of whatever the statement selects."""
    return list(run(database, sql, parameters))
