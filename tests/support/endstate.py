"""The independent check at the end: what PostgreSQL and the queues hold, held against the rules of lifecycle.md.

Invariant: it reads the tables by statements of its own and trusts no code of `app` but the driver's set-up.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import text

from app.sqs.queue import Queue
from devstack.families import Family
from tests.support.answers import Question, canonical
from tests.support.engine import Engine


def load_job(
    engine: Engine, family: Family, manifestation: str, *, job_id: str, segments: Iterable[Any] = ()
) -> list[str]:
    """Insert a job as a foreign producer would, over `segments` (default: all of the text); the message bodies."""
    rows = list(segments) or family.job_segments(manifestation)
    with engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)"
                " VALUES (:job, :manifestation, :total, 0, 'QUEUED')"
            ),
            {"job": job_id, "manifestation": manifestation, "total": len(rows)},
        )
        connection.execute(
            text(
                "INSERT INTO segment_task (task_id, job_id, segment_id, status)"
                " SELECT gen_random_uuid(), :job, name, 'QUEUED' FROM unnest(CAST(:names AS text[])) AS n (name)"
            ),
            {"job": job_id, "names": [row.id for row in rows]},
        )
    return [
        json.dumps(
            {
                "job_id": job_id,
                "manifestation_id": manifestation,
                "segment_id": row.id,
                "start": row.start,
                "end": row.end,
            }
        )
        for row in rows
    ]


def answers_of(questions: Iterable[Question], manifestation: str) -> dict[str, list[dict[str, Any]]]:
    """Segment id to the right result, of one text."""
    return {
        question.segment_id: question.related for question in questions if question.manifestation_id == manifestation
    }


def job_row(engine: Engine, job_id: str) -> Mapping[str, Any]:
    """The job as it stands."""
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM root_job WHERE job_id = :job"), {"job": job_id}).mappings().one()
    return dict(row)


def is_over(engine: Engine, job_id: str) -> bool:
    """COMPLETED or FAILED."""
    return job_row(engine, job_id)["status"] in ("COMPLETED", "FAILED")


def problems(engine: Engine) -> list[str]:
    """Every way in which the tables contradict themselves: counters, statuses, outbox, leftovers."""
    found: list[str] = []
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                """
                SELECT j.*, o.job_id IS NOT NULL AS has_outbox, o.sent_at,
                       count(t.*) AS rows,
                       count(t.*) FILTER (WHERE t.status = 'COMPLETED') AS completed_rows,
                       count(t.*) FILTER (WHERE t.status = 'FAILED') AS failed_rows,
                       count(t.*) FILTER (WHERE t.status = 'COMPLETED' AND t.result_json IS NULL) AS without_result,
                       count(t.*) FILTER (WHERE t.status <> 'IN_PROGRESS' AND t.claim_token IS NOT NULL) AS leftovers
                FROM root_job j
                LEFT JOIN segment_task t USING (job_id)
                LEFT JOIN completion_outbox o USING (job_id)
                GROUP BY j.job_id, o.job_id, o.sent_at
                """
            )
        ).mappings()
        for row in rows:
            found += [f"job {row['job_id']}: {problem}" for problem in _job_problems(dict(row))]
    return found


def _job_problems(row: Mapping[str, Any]) -> list[str]:
    total, completed, failed = row["total_segments"], row["completed_rows"], row["failed_rows"]
    if completed == total:
        right = "COMPLETED"
    elif completed + failed == total:
        right = "FAILED"
    else:
        right = row["status"] if row["status"] in ("QUEUED", "IN_PROGRESS") else "IN_PROGRESS"
    checks = {
        f"{row['rows']} rows, {total} segments": row["rows"] == total,
        f"completed_segments {row['completed_segments']}, rows {completed}": row["completed_segments"] == completed,
        f"failed_segments {row['failed_segments']}, rows {failed}": row["failed_segments"] == failed,
        f"status {row['status']}, should be {right}": row["status"] == right,
        f"outbox row {row['has_outbox']} of a job that is {right}": row["has_outbox"] == (right == "COMPLETED"),
        f"{row['without_result']} completed segments without result": row["without_result"] == 0,
        f"{row['leftovers']} segments with a leftover token": row["leftovers"] == 0,
    }
    return [problem for problem, holds in checks.items() if not holds]


def wrong_answers(engine: Engine, job_id: str, answers: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Segments of the job that are not COMPLETED with exactly the right result. `answers`: segment id to result."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT segment_id, status, result_json, error_message FROM segment_task WHERE job_id = :job"),
            {"job": job_id},
        ).all()
    found = [f"{row.segment_id} is {row.status}: {row.error_message}" for row in rows if row.status != "COMPLETED"]
    found += [
        f"{row.segment_id} has another result"
        for row in rows
        if row.status == "COMPLETED" and canonical(row.result_json) != canonical(answers[row.segment_id])
    ]
    return found + [f"{name} has no row" for name in answers.keys() - {row.segment_id for row in rows}]


def completions(queue: Queue) -> Counter[str]:
    """How many completion messages each job has on the queue; takes them off it."""
    count: Counter[str] = Counter()
    empty = 0
    while empty < 2:  # a single empty poll may miss messages
        messages = queue.receive(10, 0, 60)
        empty = 0 if messages else empty + 1
        count.update(json.loads(message["Body"])["job_id"] for message in messages)
        if messages:
            queue.delete([message["ReceiptHandle"] for message in messages])
    return count
