"""Claims and leases: who works on a segment, decided on the database's clock.

Invariant: rows are locked first, in task_id order, and classified by the statement after it, whose snapshot is
younger than the locks; so that no answer is about a state that somebody else is just leaving
(docs/formats.md, "Claim"). The claimant brings a new token, by which a claim that is repeated is known, and
every later write is conditional on it.
"""

from collections.abc import Sequence
from typing import Any, Final

from app.core.segments import (
    JUST_AFTER_SECONDS,
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
    ClaimAnswer,
    Claimed,
    ForeignManifestation,
    HeldElsewhere,
    JobCancelled,
    SegmentRequest,
    Suspect,
    Unknown,
)
from app.db.arrays import plain_array, text_array
from app.db.postgres import Database, run
from app.db.prepared import Prepared

# One transaction: lock; send redriven FAILED segments back to QUEUED (the table's trigger gives back what they had
# counted); classify and claim. A row that its producer inserted after the lock was taken is claimed only if it is
# still as it was classified: a rival may have claimed it since, or even ended it, which leaves no token either.
# A run that left no ending is charged when its claim was alone in its process; else a neighbour may have killed it.
# The job's row is not waited for: whoever has it locked either starts the job too, or settling starts it later.
CLAIM: Final = """
SELECT 1
FROM segment_task t
JOIN unnest(%(job_ids)s::uuid[], %(segment_ids)s::text[]) AS w (job_id, segment_id) USING (job_id, segment_id)
ORDER BY t.task_id
FOR NO KEY UPDATE OF t;

UPDATE segment_task t
SET status = 'QUEUED'
FROM unnest(%(job_ids)s::uuid[], %(segment_ids)s::text[], %(manifestation_ids)s::text[], %(sent_ats)s::bigint[])
         AS w (job_id, segment_id, manifestation_id, sent_at_ms)
JOIN root_job j USING (job_id)
WHERE t.job_id = w.job_id
  AND t.segment_id = w.segment_id
  AND t.status = 'FAILED'
  AND j.manifestation_id = w.manifestation_id
  AND j.cancelled_at IS NULL
  AND to_timestamp(w.sent_at_ms / 1000.0) > coalesce(t.failed_at, t.updated_at);

WITH wanted AS MATERIALIZED (
    SELECT *
    FROM unnest(%(job_ids)s::uuid[], %(segment_ids)s::text[], %(manifestation_ids)s::text[],
                %(starts)s::bigint[], %(ends)s::bigint[], %(sent_ats)s::bigint[], %(tokens)s::uuid[])
         WITH ORDINALITY AS w (job_id, segment_id, manifestation_id, span_start, span_end, sent_at_ms, token, position)
), clock AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), seen AS MATERIALIZED (
    SELECT w.position, w.job_id, w.token, t.task_id, t.claim_token, t.claimed_alone, t.status, t.error_message,
           t.attempts,
           coalesce(t.span_start, w.span_start) AS span_start,
           coalesce(t.span_end, w.span_end) AS span_end,
           j.manifestation_id, j.fresh_since, j.total_segments AS job_segments,
           (extract(epoch FROM clock.now) - w.sent_at_ms / 1000.0)::float8 AS age_seconds,
           extract(epoch FROM CASE t.status WHEN 'RETRYING' THEN t.retry_at ELSE t.lease_expires_at END
                              - clock.now)::float8 AS held_seconds,
           CASE
               WHEN t.task_id IS NULL THEN 'unknown'
               WHEN j.manifestation_id <> w.manifestation_id THEN 'foreign'
               WHEN t.status = 'COMPLETED' THEN 'completed'
               WHEN j.cancelled_at IS NOT NULL THEN 'cancelled'
               WHEN t.status = 'FAILED' THEN 'failed'
               WHEN t.status = 'IN_PROGRESS' AND t.claim_token = w.token THEN 'ours'
               WHEN t.status = 'IN_PROGRESS' AND t.lease_expires_at > clock.now THEN 'held'
               WHEN t.status = 'RETRYING' AND t.retry_at > clock.now THEN 'held'
               WHEN t.status = 'IN_PROGRESS' AND t.claimed_alone AND t.attempts >= %(max_attempts)s THEN 'abandoned'
               WHEN t.status = 'IN_PROGRESS' AND t.claim_token IS NOT NULL AND NOT %(alone)s THEN 'suspect'
               ELSE 'claimed'
           END AS answer
    FROM wanted w
    CROSS JOIN clock
    LEFT JOIN segment_task t ON t.job_id = w.job_id AND t.segment_id = w.segment_id
    LEFT JOIN root_job j ON j.job_id = t.job_id
), claimed AS (
    UPDATE segment_task t
    SET status = 'IN_PROGRESS',
        claim_token = seen.token,
        claimed_by = %(worker)s,
        claimed_alone = CASE seen.answer WHEN 'abandoned' THEN t.claimed_alone ELSE %(alone)s END,
        lease_expires_at = clock_timestamp() + %(lease_seconds)s * interval '1 second',
        attempts = CASE
            WHEN seen.answer = 'abandoned' THEN t.attempts
            WHEN t.status = 'IN_PROGRESS' AND t.claim_token IS NOT NULL AND NOT t.claimed_alone THEN t.attempts
            ELSE t.attempts + 1
        END,
        retry_at = NULL,
        span_start = seen.span_start,
        span_end = seen.span_end,
        updated_at = clock_timestamp()
    FROM seen
    WHERE t.task_id = seen.task_id
      AND seen.answer IN ('claimed', 'abandoned')
      AND t.claim_token IS NOT DISTINCT FROM seen.claim_token
      AND t.status = seen.status
    RETURNING t.task_id, t.attempts
), started AS (
    UPDATE root_job
    SET status = 'IN_PROGRESS', updated_at = clock_timestamp()
    WHERE job_id IN (
        SELECT job_id FROM root_job
        WHERE status = 'QUEUED' AND job_id IN (SELECT job_id FROM seen WHERE answer = 'claimed')
        ORDER BY job_id
        FOR NO KEY UPDATE SKIP LOCKED
    )
)
SELECT CASE WHEN seen.answer IN ('claimed', 'abandoned') AND claimed.task_id IS NULL THEN 'held'
            ELSE seen.answer END AS answer,
       seen.task_id::text, seen.token::text, coalesce(claimed.attempts, seen.attempts) AS attempts,
       seen.span_start, seen.span_end,
       seen.manifestation_id, seen.error_message, greatest(seen.held_seconds, 0) AS held_seconds,
       seen.age_seconds, seen.job_segments,
       (extract(epoch FROM least(seen.fresh_since, clock_timestamp())) * 1000000)::bigint AS fresh_since_us,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS read_at_us
FROM seen
LEFT JOIN claimed USING (task_id)
ORDER BY seen.position
"""

# A row that somebody else has locked is passed over, so that one such row does not let the leases of all others run
# out; whether its token still stands is read without its lock.
RENEW: Final = """
WITH free AS MATERIALIZED (
    SELECT t.task_id
    FROM segment_task t
    JOIN unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[]) AS w (task_id, token)
      ON t.task_id = w.task_id AND t.claim_token = w.token
    WHERE t.status = 'IN_PROGRESS'
    ORDER BY t.task_id
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE segment_task t
SET lease_expires_at = clock_timestamp() + %(lease_seconds)s * interval '1 second'
FROM free
WHERE t.task_id = free.task_id;

SELECT t.claim_token::text
FROM segment_task t
JOIN unnest(%(task_ids)s::uuid[], %(tokens)s::uuid[]) AS w (task_id, token)
  ON t.task_id = w.task_id AND t.claim_token = w.token
WHERE t.status = 'IN_PROGRESS'
"""

LONGEST_LOCK_WAIT_SECONDS: Final = 5.0
LEASES_A_LOCK_WAIT: Final = 4
"""How long a claim waits for a row that somebody has locked: longer than any batch of ours holds one, but no more than
this part of its lease, so that the batch's other rows can still be claimed afterwards."""

_CLAIM: Final = Prepared(CLAIM, is_lasting=False)
"""A claim that a crash of PostgreSQL takes back costs its run: the token is gone, and the message comes back."""


class PostgresClaims:
    """`ClaimStore` on PostgreSQL. `worker` names this start of this process; it is kept for operators."""

    def __init__(self, database: Database, worker: str, max_attempts: int) -> None:
        self._database = database
        self._worker = worker
        self._max_attempts = max_attempts

    def claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], lease_seconds: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """See `ClaimStore`; one round trip."""
        wait_seconds = min(LONGEST_LOCK_WAIT_SECONDS, lease_seconds / LEASES_A_LOCK_WAIT)
        parameters = self._parameters(requests, tokens, lease_seconds, alone)
        rows = _CLAIM.run(self._database, parameters, lock_timeout_ms=max(1, int(wait_seconds * 1000)))
        return [_answer(request, row) for request, row in zip(requests, rows, strict=True)]

    def check(self) -> None:
        """See that claiming fits the tables, by a claim of nothing, which plans it for the first real one."""
        self.claim([], [], lease_seconds=1.0)

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        """See `ClaimStore`."""
        parameters = {
            "task_ids": [claim.task_id for claim in claims],
            "tokens": [claim.token for claim in claims],
            "lease_seconds": lease_seconds,
        }
        return {row[0] for row in run(self._database, RENEW, parameters)}

    def _parameters(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], lease_seconds: float, alone: bool
    ) -> dict[str, Any]:
        return {
            "tokens": plain_array(tokens),
            "alone": alone,
            "job_ids": plain_array(request.job_id for request in requests),
            "segment_ids": text_array([request.segment_id for request in requests]),
            "manifestation_ids": text_array([request.manifestation_id for request in requests]),
            "starts": plain_array(request.start for request in requests),
            "ends": plain_array(request.end for request in requests),
            "sent_ats": plain_array(request.sent_at_ms for request in requests),
            "lease_seconds": lease_seconds,
            "max_attempts": self._max_attempts,
            "worker": self._worker,
        }


def _answer(request: SegmentRequest, row: Any) -> ClaimAnswer:
    match row.answer:
        case "claimed" | "ours":
            return _claimed(request, row)
        case "abandoned":
            return Abandoned(_claimed(request, row))
        case "suspect":
            return Suspect()
        case "held":
            return HeldElsewhere((row.held_seconds or 0.0) + JUST_AFTER_SECONDS)
        case "completed":
            return AlreadyCompleted()
        case "failed":
            return AlreadyFailed(row.error_message or "no reason was recorded")
        case "cancelled":
            return JobCancelled()
        case "foreign":
            return ForeignManifestation(row.manifestation_id)
        case "unknown":
            return Unknown(row.age_seconds)
    raise AssertionError(f"CLAIM answered {row.answer!r}")


def _claimed(request: SegmentRequest, row: Any) -> Claimed:
    return Claimed(
        task_id=row.task_id,
        token=row.token,
        job_id=request.job_id,
        manifestation_id=row.manifestation_id,
        segment_id=request.segment_id,
        start=row.span_start,
        end=row.span_end,
        attempts=row.attempts,
        fresh_since_us=row.fresh_since_us,
        read_at_us=row.read_at_us,
        job_segments=row.job_segments,
    )
