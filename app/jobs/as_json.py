"""What the reading commands print for programs: one JSON object a line. docs/commands.md lists the fields.

Invariant: fields are added, never renamed; times are ISO 8601 with their zone; a stored result is passed on as it is.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.core.jobs import Job, Miscount, SegmentRecord
from app.core.standing import Standing
from app.sqs.dead_letters import DeadLetter
from app.sqs.queue import QueueFacts


def line_of(fields: Mapping[str, Any]) -> str:
    """The object on one line."""
    return json.dumps(fields, ensure_ascii=False)


def job_fields(job: Job) -> dict[str, Any]:
    """A row of root_job, and what is left to do."""
    return {
        "job_id": job.job_id,
        "manifestation_id": job.manifestation_id,
        "status": job.status,
        "total_segments": job.total_segments,
        "completed_segments": job.completed_segments,
        "failed_segments": job.failed_segments,
        "open_segments": job.open_segments,
        "created_at": _time(job.created_at),
        "updated_at": _time(job.updated_at),
        "cancelled_at": _time(job.cancelled_at),
    }


def standing_fields(job: Job, standing: Standing, miscounted: Miscount | None) -> dict[str, Any]:
    """The job, and where it stands; `miscounted`: its rows are not as many as it says."""
    left = standing.lately.seconds_left(job)
    error = standing.last_error
    return {
        **job_fields(job),
        "rows": dict(standing.rows),
        "held": standing.held,
        "held_by": [
            {"worker": each.worker, "segments": each.segments, "until": _time(each.until)} for each in standing.held_by
        ],
        "retrying": standing.retrying,
        "retry_first_at": _time(standing.retry_first_at),
        "retry_last_at": _time(standing.retry_last_at),
        "unsent": standing.unsent,
        "abandoned": standing.abandoned,
        "sent": standing.sent,
        "resend_from": _time(standing.resend_from),
        "last_error": error and {**error._asdict(), "at": _time(error.at)},
        "segments_per_second": round(standing.lately.per_second or 0.0, 3),
        "seconds_left": None if left is None else round(left),
        "is_miscounted": miscounted is not None,
    }


def queue_fields(name: str, facts: QueueFacts | None, reason: str | None) -> dict[str, Any]:
    """The input queue's depth, or the reason why it can't be told."""
    if facts is None:
        return {"name": name or None, "waiting": None, "messages": None, "error": reason}
    return {"name": name, "waiting": facts.waiting, "messages": facts.messages, "error": None}


def dead_letter_fields(letter: DeadLetter) -> dict[str, Any]:
    """A message that was given up."""
    return {
        "message_id": letter.message_id,
        "job_id": letter.job_id,
        "segment_id": letter.segment_id,
        "reason": letter.reason,
        "receives": letter.receives,
        "since": _time(letter.since),
    }


def record_line(record: SegmentRecord) -> str:
    """A segment with its result; an error stands there if there is one."""
    span = None if record.start is None else {"start": record.start, "end": record.end}
    fields = {"segment_id": record.segment_id, "span": span, "status": record.status}
    if record.error is not None:
        fields["error"] = record.error
    return f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "related": {record.related or "null"}}}'


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
