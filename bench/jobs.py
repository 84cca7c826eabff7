"""Jobs as a foreign producer makes them, and what the database tells about their progress afterwards.

Invariant: how fast a contestant was is read from PostgreSQL alone: from the clock times at which it stored results.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from bench.graphs import SegmentSpan, Text
from bench.ground import Arena

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

MESSAGES_PER_CALL = 10

INSERT_JOB = """
INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)
VALUES (%(job)s, %(manifestation)s, %(total)s, 0, 'QUEUED')
"""
INSERT_TASKS = """
INSERT INTO segment_task (task_id, job_id, segment_id, status)
SELECT gen_random_uuid(), %(job)s, name, 'QUEUED' FROM unnest(%(names)s::text[]) AS n (name)
"""
COUNTED = "SELECT coalesce(sum(completed_segments), 0)::int FROM root_job"
TIMES = "SELECT extract(epoch FROM updated_at)::float8 FROM segment_task WHERE status = 'COMPLETED' ORDER BY updated_at"
RESULTS = "SELECT segment_id, result_json FROM segment_task WHERE job_id = %s ORDER BY segment_id"
WRONG = """
SELECT (SELECT count(*) FROM root_job
        WHERE status <> 'COMPLETED' OR completed_segments <> total_segments)
     + (SELECT count(*) FROM segment_task WHERE status <> 'COMPLETED' OR result_json IS NULL)
"""
WAL_POSITION = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs whose rows are there; `bodies` are their messages, none of them sent."""

    ids: Sequence[str]
    bodies: Sequence[str]


def make_jobs(arena: Arena, text: Text, segments: Sequence[SegmentSpan], jobs: int = 1, *, mixed: bool = False) -> Jobs:
    """`jobs` jobs over the same segments. `mixed`: their messages take turns, else one job follows another."""
    ids = [str(uuid.uuid4()) for _ in range(jobs)]
    with arena.postgres.cursor() as cursor:
        for job in ids:
            row = {"job": job, "manifestation": text.manifestation, "total": len(segments)}
            cursor.execute(INSERT_JOB, row)
            cursor.execute(INSERT_TASKS, {"job": job, "names": [segment.id for segment in segments]})
    pairs = (
        [(job, segment) for segment in segments for job in ids]
        if mixed
        else [(job, segment) for job in ids for segment in segments]
    )
    return Jobs(ids, [_body(job, text, segment) for job, segment in pairs])


def send(arena: Arena, bodies: Sequence[str]) -> None:
    """Put the messages on the queue, ten a call."""
    for batch in batched(bodies, MESSAGES_PER_CALL):
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(at), "MessageBody": body} for at, body in enumerate(batch)
        ]
        answer = arena.sqs.send_message_batch(QueueUrl=arena.queue_url, Entries=entries)
        assert not answer.get("Failed"), "SQS refused messages"


def counted(arena: Arena) -> int:
    """The segments that are counted on their jobs."""
    return int(_rows(arena, COUNTED)[0][0])


def completion_times(arena: Arena) -> list[float]:
    """When each result was stored, in seconds since the epoch, ascending."""
    return [row[0] for row in _rows(arena, TIMES)]


def results(arena: Arena, job: str) -> dict[str, Any]:
    """Segment id to result."""
    return dict(_rows(arena, RESULTS, job))


def wrong_rows(arena: Arena) -> int:
    """Jobs and segments that are not as they must be when all is done."""
    return int(_rows(arena, WRONG)[0][0])


def wal_position(arena: Arena) -> int:
    """How many bytes the server has written ahead so far."""
    return int(_rows(arena, WAL_POSITION)[0][0])


def as_sent(result: Sequence[dict[str, Any]]) -> str:
    """A result as JSON text in the order of keys in which workers send it; PostgreSQL gives them in its own."""
    return json.dumps([_ordered(entry) for entry in result], ensure_ascii=False)


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    segments = [
        {"segment_id": row["segment_id"], "span": {"start": row["span"]["start"], "end": row["span"]["end"]}}
        for row in entry["segments"]
    ]
    return {"manifestation_id": entry["manifestation_id"], "segments": segments}


def _body(job: str, text: Text, segment: SegmentSpan) -> str:
    return json.dumps(
        {
            "job_id": job,
            "manifestation_id": text.manifestation,
            "segment_id": segment.id,
            "start": segment.start,
            "end": segment.end,
        }
    )


def _rows(arena: Arena, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with arena.postgres.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()
