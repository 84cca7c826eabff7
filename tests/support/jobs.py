"""Jobs in a test's database, made and worked on by the same code as in production; and what must hold of them."""

import uuid
from collections.abc import Sequence
from typing import Any

from app.core.endings import Completed, Failed, Settled
from app.core.segments import ClaimAnswer, Claimed, SegmentRequest
from app.db.claims import PostgresClaims
from app.db.jobs import PostgresJobs
from app.db.postgres import run
from app.db.results import PostgresResults
from tests.support.asking import ask
from tests.support.engine import Engine

LEASE_SECONDS = 60.0
RESULT = '[{"manifestation_id": "other", "segments": [{"segment_id": "o1", "span": {"start": 0, "end": 9}}]}]'
NOT_TRUE = """
SELECT j.job_id::text, j.status, j.completed_segments, j.failed_segments, r.completed, r.failed
FROM root_job j
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
           count(*) FILTER (WHERE status = 'FAILED') AS failed
    FROM segment_task t WHERE t.job_id = j.job_id
) r
WHERE (j.completed_segments, j.failed_segments) <> (r.completed, r.failed)
   OR (j.status IN ('COMPLETED', 'FAILED')) <> (r.completed + r.failed = j.total_segments)
   OR (j.status = 'COMPLETED') <> (r.completed = j.total_segments)
"""


def segments(count: int) -> list[tuple[str, int, int]]:
    """(id, start, end) of so many."""
    return [(f"s{at:05}", at * 10, at * 10 + 10) for at in range(count)]


def make_job(engine: Engine, count: int, manifestation_id: str = "m") -> str:
    """A committed job; its id."""
    job_id = str(uuid.uuid4())
    PostgresJobs(engine).create(job_id, manifestation_id, segments(count))
    return job_id


def claim(engine: Engine, job_id: str, ids: Sequence[str], *, sent_at_ms: int = 0) -> list[ClaimAnswer]:
    """What the worker's claim answers for these segments."""
    requests = [SegmentRequest(job_id, "m", segment_id, 0, 10, sent_at_ms) for segment_id in ids]
    return ask(PostgresClaims(engine, "test", 5), requests, LEASE_SECONDS)


def claimed(engine: Engine, job_id: str, ids: Sequence[str]) -> list[Claimed]:
    """Claims that must succeed."""
    answers = claim(engine, job_id, ids)
    assert all(isinstance(answer, Claimed) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Claimed)]


def complete(engine: Engine, claims: Sequence[Claimed]) -> Settled:
    """Store a result for each."""
    return PostgresResults(engine).settle([Completed(each, RESULT) for each in claims])


def fail(engine: Engine, claims: Sequence[Claimed]) -> Settled:
    """Fail each."""
    return PostgresResults(engine).settle([Failed(each, "broken") for each in claims])


def rows(engine: Engine, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows as plain tuples."""
    return [tuple(row) for row in run(engine, sql, parameters)]


def statuses(engine: Engine, job_id: str) -> dict[str, int]:
    """How many segments of the job have which status."""
    sql = "SELECT status, count(*) FROM segment_task WHERE job_id = %(job_id)s::uuid GROUP BY status"
    return {row[0]: row[1] for row in rows(engine, sql, job_id=job_id)}


def assert_true(engine: Engine) -> None:
    """Counters and states of every job say what its rows say."""
    assert rows(engine, NOT_TRUE) == []
