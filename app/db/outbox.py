"""The completion outbox and the sweep's statements: what was forgotten is found here.

Invariant: a row is leased before its message is sent and marked by the lease's token after; a segment is marked as
re-sent before its message is. No lock outlives a statement, so none is held while SQS is being talked to.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from app.core.endings import Announcement
from app.core.unsent import RESEND_AFTER_SECONDS, UnsentSegment
from app.db.postgres import Database, run
from app.db.results import OUTBOX_LEASE_SECONDS
from app.errors import StatementTimeoutError

SWEEP_LOCK: Final = 5_306_093
"""Advisory lock of the statement that looks for segments to re-send: one worker at a time is enough."""

MAX_DOUBLINGS: Final = 10
"""The wait before a re-sending doubles with each one before it, so that a long backlog is not flooded."""

MOST_LOOKED_AT: Final = 50_000
"""Due segments among which a sweep shares its messages between jobs; where more are due, the longest untouched."""

MAX_FINISHED_A_CALL: Final = 100

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
    FOR NO KEY UPDATE OF o SKIP LOCKED
)
RETURNING o.job_id::text, o.manifestation_id, o.lease_token::text
"""

MARK_SENT: Final = """
UPDATE completion_outbox o
SET sent_at = clock_timestamp(), send_count = o.send_count + 1, lease_token = NULL, leased_until = NULL
FROM unnest(%(job_ids)s::uuid[], %(tokens)s::uuid[]) AS w (job_id, token)
WHERE o.job_id = w.job_id AND o.lease_token = w.token
"""

# The counters say so; whether the rows do is looked at below, under the job's lock. A job gets here when somebody
# changed a row by hand, or its total_segments: never by the worker's own road.
FIND_FORGOTTEN: Final = """
SELECT job_id::text
FROM root_job
WHERE status IN ('QUEUED', 'IN_PROGRESS')
  AND completed_segments + failed_segments >= greatest(total_segments, 1)
  AND (%(job_id)s IS NULL OR job_id = %(job_id)s::uuid)
ORDER BY job_id
LIMIT %(limit)s
"""

# A job may have more rows than its producer counted, and ends with the last of them. The lock comes first, so that
# the rows are seen as they are while nobody can count; a job that somebody else has locked is left to the next sweep.
FINISH_FORGOTTEN: Final = """
SELECT 1 FROM root_job WHERE job_id = %(job_id)s::uuid FOR NO KEY UPDATE NOWAIT;

WITH ended AS (
    UPDATE root_job j
    SET status = CASE j.failed_segments WHEN 0 THEN 'COMPLETED' ELSE 'FAILED' END, updated_at = clock_timestamp()
    WHERE j.job_id = %(job_id)s::uuid
      AND j.status IN ('QUEUED', 'IN_PROGRESS')
      AND j.completed_segments + j.failed_segments >= greatest(j.total_segments, 1)
      AND NOT EXISTS (
          SELECT 1 FROM segment_task t
          WHERE t.job_id = j.job_id AND t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      )
    RETURNING j.job_id, j.manifestation_id, j.status
), announced AS (
    INSERT INTO completion_outbox (job_id, manifestation_id)
    SELECT job_id, manifestation_id FROM ended WHERE status = 'COMPLETED'
    ON CONFLICT (job_id) DO UPDATE SET sent_at = NULL, lease_token = NULL, leased_until = NULL
)
SELECT job_id::text, status FROM ended
"""

# Whoever completes a job makes its row with it: only a hand can have left a job without one.
ADD_MISSING: Final = """
INSERT INTO completion_outbox (job_id, manifestation_id)
SELECT j.job_id, j.manifestation_id
FROM root_job j
WHERE j.status = 'COMPLETED'
  AND j.completed_segments >= greatest(j.total_segments, 1)
  AND (%(job_id)s IS NOT NULL OR j.updated_at > clock_timestamp() - interval '1 day')
  AND (%(job_id)s IS NULL OR j.job_id = %(job_id)s::uuid)
  AND NOT EXISTS (SELECT 1 FROM completion_outbox o WHERE o.job_id = j.job_id)
ON CONFLICT (job_id) DO NOTHING
RETURNING job_id::text
"""

# In nobody's hands, and it is time. `next_send_at` has an index, and only what is stable within a statement, unlike
# clock_timestamp(), is looked up in one: where nothing is due nothing is read.
DUE: Final = """t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      AND t.next_send_at <= statement_timestamp()
      AND (t.lease_expires_at IS NULL OR t.lease_expires_at < statement_timestamp())
      AND (t.retry_at IS NULL OR t.retry_at < statement_timestamp())"""

# The same for an operator, who says how long after its last message a segment's next one may be sent.
OLDER: Final = """t.status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')
      AND coalesce(t.last_sent_at, t.created_at) < statement_timestamp()
          - %(after_seconds)s * interval '1 second' * 2 ^ least(t.send_count, %(max_doublings)s)
      AND (t.lease_expires_at IS NULL OR t.lease_expires_at < statement_timestamp())
      AND (t.retry_at IS NULL OR t.retry_at < statement_timestamp())"""

NEXT_SENDING: Final = """clock_timestamp()
        + %(resend_after_seconds)s * interval '1 second' * 2 ^ least(t.send_count + 1, %(max_doublings)s)"""

# The parts of marking. One worker at a time is enough, which looks at so many; each job's longest untouched segment
# comes first, then each job's second, so that no job waits behind another's thousands.
ALONE: Final = """
WITH sweep AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(%(sweep_lock)s) AS mine
), looked_at AS ("""

CANDIDATES: Final = """FROM segment_task t
    JOIN root_job j USING (job_id)
    WHERE (SELECT mine FROM sweep)
      AND j.cancelled_at IS NULL
      AND (%(job_id)s IS NULL OR t.job_id = %(job_id)s::uuid)"""

CHOSEN: Final = """LIMIT %(most_looked_at)s
), in_turn AS (
    SELECT task_id, since, row_number() OVER (PARTITION BY job_id ORDER BY since, task_id) AS turn
    FROM looked_at
), chosen AS (
    SELECT task_id FROM in_turn ORDER BY turn, since, task_id LIMIT %(limit)s
), due AS MATERIALIZED (
    SELECT t.task_id, t.job_id, t.segment_id, t.span_start, t.span_end
    FROM segment_task t
    JOIN chosen USING (task_id)"""

# What has no span can't be sent: it is found and not marked.
MARKED: Final = f"""FOR NO KEY UPDATE OF t SKIP LOCKED
), marked AS (
    UPDATE segment_task t
    SET last_sent_at = clock_timestamp(), send_count = t.send_count + 1, next_send_at = {NEXT_SENDING}
    FROM due
    WHERE t.task_id = due.task_id AND due.span_start IS NOT NULL
)
SELECT due.task_id::text, due.job_id::text, j.manifestation_id, due.segment_id, due.span_start, due.span_end
FROM due
JOIN root_job j USING (job_id)
"""  # noqa: S608  (constants of ours)

MARK_DUE: Final = f"""{ALONE}
    SELECT t.task_id, t.job_id, t.next_send_at AS since
    {CANDIDATES}
      AND {DUE}
    ORDER BY since
    {CHOSEN}
    WHERE {DUE}
    {MARKED}"""

MARK_OLDER: Final = f"""{ALONE}
    SELECT t.task_id, t.job_id, coalesce(t.last_sent_at, t.created_at) AS since
    {CANDIDATES}
      AND {OLDER}
    ORDER BY since
    {CHOSEN}
    WHERE {OLDER}
    {MARKED}"""

# Nothing was sent, so `last_sent_at` stays.
PUT_OFF: Final = f"""
WITH bare AS MATERIALIZED (
    SELECT task_id FROM segment_task
    WHERE task_id = ANY(%(task_ids)s::uuid[]) AND span_start IS NULL
    ORDER BY task_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE segment_task t
SET send_count = t.send_count + 1, next_send_at = {NEXT_SENDING}
FROM bare
WHERE t.task_id = bare.task_id
"""  # noqa: S608  (constants of ours)

STORE_SPANS: Final = """
UPDATE segment_task t
SET span_start = w.span_start, span_end = w.span_end
FROM unnest(%(task_ids)s::uuid[], %(starts)s::bigint[], %(ends)s::bigint[]) AS w (task_id, span_start, span_end)
WHERE t.task_id = w.task_id AND t.span_start IS NULL
"""


_WAITS: Final = {"resend_after_seconds": RESEND_AFTER_SECONDS, "max_doublings": MAX_DOUBLINGS}


class PostgresOutbox:
    """The outbox and the sweep on PostgreSQL; each method is one transaction and may raise `OutageError`.

    With `job_id` a method looks at that job only.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def lease_unsent(self, limit: int, job_id: str | None = None) -> list[Announcement]:
        """Completion messages that nobody is sending, leased to the caller."""
        parameters = {"limit": limit, "lease_seconds": OUTBOX_LEASE_SECONDS, "job_id": job_id}
        return [Announcement(*row) for row in run(self._database, LEASE_UNSENT, parameters)]

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        """They are on the queue; a row that somebody else has leased since is left to them."""
        parameters = {
            "job_ids": [announcement.job_id for announcement in announcements],
            "tokens": [announcement.token for announcement in announcements],
        }
        run(self._database, MARK_SENT, parameters)

    def finish_forgotten(self, job_id: str | None = None) -> list[tuple[str, str]]:
        """Give jobs that have ended their status, and a completion message to send; (job id, status) of each."""
        ended: list[tuple[str, str]] = []
        for row in run(self._database, FIND_FORGOTTEN, {"job_id": job_id, "limit": MAX_FINISHED_A_CALL}):
            with suppress(StatementTimeoutError):
                ended += [(each[0], each[1]) for each in run(self._database, FINISH_FORGOTTEN, {"job_id": row[0]})]
        return ended

    def add_missing(self, job_id: str | None = None) -> list[str]:
        """Make the outbox row of COMPLETED jobs that have none; their ids."""
        return [row[0] for row in run(self._database, ADD_MISSING, {"job_id": job_id})]

    def mark_for_resending(
        self, limit: int, job_id: str | None = None, after_seconds: float | None = None
    ) -> list[UnsentSegment]:
        """Unfinished segments that nobody will otherwise work on; those with a span are marked as sent now.

        Due by the waits that double or, with `after_seconds`, by the age of their last message.
        """
        parameters = {
            **_WAITS,
            "limit": limit,
            "job_id": job_id,
            "after_seconds": after_seconds,
            "most_looked_at": MOST_LOOKED_AT,
            "sweep_lock": SWEEP_LOCK,
        }
        if after_seconds is None:
            return [UnsentSegment(*row) for row in run(self._database, MARK_DUE, parameters)]
        return [UnsentSegment(*row) for row in run(self._database, MARK_OLDER, parameters)]

    def put_off(self, task_ids: Sequence[str]) -> None:
        """Nobody knows their span: a sweep looks at them again after a wait that doubles."""
        run(self._database, PUT_OFF, {**_WAITS, "task_ids": list(task_ids)})

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments whose producer gave none."""
        parameters = {
            "task_ids": [span[0] for span in spans],
            "starts": [span[1] for span in spans],
            "ends": [span[2] for span in spans],
        }
        run(self._database, STORE_SPANS, parameters)
