"""The published routes: make a job of a text, look at it, read what it found.

Invariant: the routes and bodies are those of docs/formats.md, with fields added at most.
"""

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Final, NoReturn

from fastapi import APIRouter, HTTPException
from fastapi.responses import StreamingResponse

from app.core.jobs import ConflictError, Job, NotFoundError, SegmentRecord
from app.errors import ProcessorError
from app.jobs.producer import Sending, find_job
from app.jobs.wiring import GRAPH, SEGMENTS_QUEUE, STORE, require
from app.logs import one_line
from app.models import AllRelations, JobCreated, JobState
from app.web.ids import JobId, TextId, check_text, read_job_id
from app.web.parts import Services
from app.web.problems import RETRY_AFTER_SECONDS, may_answer

log = logging.getLogger(__name__)

router: Final = APIRouter(tags=["relations"])

PIECE_CHARACTERS: Final = 64_000
"""Results are passed on in pieces of about so much; each has at least one segment's."""


@router.post("/relation/{manifestation_id:path}", responses=may_answer(404))
def create_job(manifestation_id: TextId, parts: Services) -> JobCreated:
    """Make a job from the text's segmentation or, without one, its pagination, and queue its messages."""
    check_text(manifestation_id)
    require(*STORE, *SEGMENTS_QUEUE, *GRAPH)
    job = parts.producer.create(manifestation_id)
    sent: list[int] = []
    try:
        sending = parts.producer.send_unsent(job.job_id, sent.append)
    except ProcessorError as error:
        _refuse_half_sent(job, sum(sent), str(error))
    if not sending.is_complete:
        _refuse_half_sent(job, sending.sent, _first_reason(sending))
    return JobCreated(
        job_id=uuid.UUID(job.job_id),
        status="QUEUED",
        message=f"{job.total_segments} segments of {manifestation_id} are queued",
    )


@router.get("/relation/{job_id}/status", responses=may_answer(404))
def read_status(job_id: JobId, parts: Services) -> JobState:
    """The job as it stands."""
    return JobState.model_validate(find_job(parts.jobs, read_job_id(job_id)))


@router.get(
    "/relation/{manifestation_id:path}/all-relations", response_model=AllRelations, responses=may_answer(404, 409)
)
def read_all_relations(manifestation_id: TextId, parts: Services) -> StreamingResponse:
    """Every segment of the text with all that is related to it, from the newest COMPLETED job; streamed."""
    check_text(manifestation_id)
    job = parts.jobs.find_newest(manifestation_id)
    if job is None:
        raise NotFoundError(f"there is no job of the manifestation {manifestation_id!r}")
    if job.status != "COMPLETED":
        raise ConflictError(
            f"no job of the manifestation {manifestation_id!r} is COMPLETED; the newest one, {job.job_id}, is"
            f" {job.status} with {job.completed_segments} of {job.total_segments} segments completed"
        )
    records = parts.jobs.read_records(job.job_id)
    return StreamingResponse(_relations_json(manifestation_id, records), media_type="application/json")


def _relations_json(manifestation_id: str, records: Iterator[SegmentRecord]) -> Iterator[str]:
    """The body of `AllRelations`: the stored results are passed on as they are, some at a time."""
    piece = f'{{"manifestation_id":{json.dumps(manifestation_id)},"segments":['
    separator = ""
    for record in records:
        mappings = record.related or "[]"
        piece += f'{separator}{{"segment_id":{json.dumps(record.segment_id)},"mappings":{mappings}}}'
        separator = ","
        if len(piece) > PIECE_CHARACTERS:
            yield piece
            piece = ""
    yield f"{piece}]}}"


def _first_reason(sending: Sending) -> str:
    return next(iter(sending.refused.values()), "segments without a known span")


def _refuse_half_sent(job: Job, sent: int, reason: str) -> NoReturn:
    """The job is there: whoever asked must not make another one."""
    log.error("Job %s is saved but not all of its messages could be sent: %s", job.job_id, reason)
    detail = (
        f"job {job.job_id} is saved, but only {sent} of its {job.total_segments} messages were sent"
        f" ({one_line(reason)}); the workers' sweep sends the rest after a quarter of an hour, and at once does:"
        f" python -m app.jobs resume {job.job_id}"
    )
    raise HTTPException(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
