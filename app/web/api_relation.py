"""The published routes: make a job of a text, look at it, read what it found.

Invariant: the routes and bodies are those of docs/formats.md, with fields added at most.
"""

import json
import uuid
from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from app.core.jobs import ConflictError, Job, KeyTakenError, NotFoundError, SegmentRecord
from app.db.jobs import PostgresJobs
from app.jobs.producer import Producer, find_job
from app.jobs.wiring import GRAPH, SEGMENTS_QUEUE, STORE, require
from app.models import AllRelations, JobCreated, JobState
from app.web.bodies import PartialRelations
from app.web.ids import JobId, TextId, check_text, read_job_id
from app.web.parts import Services
from app.web.problems import FieldError, may_answer
from app.web.sending import Sender

router: Final = APIRouter(tags=["relations"])

VISIBLE_ASCII: Final = "^[ -~]+$"
PIECE_CHARACTERS: Final = 64_000
"""Results are passed on in pieces of about so much; each has at least one segment's."""


@router.post("/relation/{manifestation_id:path}", status_code=202, responses=may_answer(404))
def create_job(
    manifestation_id: TextId,
    parts: Services,
    sender: Sender,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=VISIBLE_ASCII,
            description="The same key makes no second job, however often it is sent; kept as long as its job.",
        ),
    ] = None,
) -> JobCreated:
    """Make a job from the text's segmentation or, without one, its pagination; its messages are sent behind the answer.

    What can't be sent is left to the workers' sweep.
    """
    check_text(manifestation_id)
    require(*STORE, *SEGMENTS_QUEUE, *GRAPH)
    job, is_new = _make_job(parts.producer, manifestation_id, idempotency_key)
    if is_new:
        sender.send(parts.producer, job.job_id)
    response.headers["Location"] = f"/jobs/{job.job_id}"
    return JobCreated(
        job_id=uuid.UUID(job.job_id),
        status="QUEUED",
        message=f"{job.total_segments} segments of {manifestation_id} are queued",
    )


def _make_job(producer: Producer, manifestation_id: str, key: str | None) -> tuple[Job, bool]:
    """And whether it was made now."""
    if key is None:
        return producer.create(manifestation_id), True
    try:
        return producer.create_once(manifestation_id, key)
    except KeyTakenError as error:
        raise FieldError("Idempotency-Key", str(error)) from None


@router.get("/relation/{job_id}/status", responses=may_answer(404))
def read_status(job_id: JobId, parts: Services) -> JobState:
    """The job as it stands."""
    return JobState.model_validate(find_job(parts.jobs, read_job_id(job_id)))


@router.get(
    "/relation/{manifestation_id:path}/all-relations",
    response_model=PartialRelations | AllRelations,
    responses=may_answer(404, 409),
)
def read_all_relations(
    manifestation_id: TextId,
    parts: Services,
    job_id: Annotated[str | None, Query(description="Of this job, and not of the newest COMPLETED one.")] = None,
    partial: Annotated[
        bool, Query(description="What an unfinished or FAILED job has found so far, with how far it has come.")
    ] = False,
) -> StreamingResponse:
    """Every segment of the text with all that is related to it, from the newest COMPLETED job; streamed."""
    check_text(manifestation_id)
    job = _newest_job(parts.jobs, manifestation_id) if job_id is None else _job_of(parts.jobs, job_id, manifestation_id)
    if not partial and job.status != "COMPLETED":
        raise ConflictError(_why_not_yet(job, is_newest=job_id is None))
    records = parts.jobs.read_records(job.job_id)
    if partial:
        head = json.dumps(_progress(job), separators=(",", ":"))
        records = (record for record in records if record.status == "COMPLETED")
    else:
        head = json.dumps({"manifestation_id": manifestation_id}, separators=(",", ":"))
    return StreamingResponse(_relations_json(head, records), media_type="application/json")


def _newest_job(jobs: PostgresJobs, manifestation_id: str) -> Job:
    """The newest COMPLETED one or, without one, the newest."""
    job = jobs.find_newest(manifestation_id)
    if job is None:
        raise NotFoundError(f"there is no job of the manifestation {manifestation_id!r}")
    return job


def _job_of(jobs: PostgresJobs, job_id: str, manifestation_id: str) -> Job:
    job = find_job(jobs, read_job_id(job_id))
    if job.manifestation_id != manifestation_id:
        raise NotFoundError(
            f"job {job.job_id} is of the manifestation {job.manifestation_id!r}, not of {manifestation_id!r}"
        )
    return job


def _why_not_yet(job: Job, *, is_newest: bool) -> str:
    counts = f"{job.status} with {job.completed_segments} of {job.total_segments} segments completed"
    partly = "(what there is comes with ?partial=true)"
    if is_newest:
        text = f"no job of the manifestation {job.manifestation_id!r} is COMPLETED {partly}"
        return f"{text}; the newest one, {job.job_id}, is {counts}"
    return f"job {job.job_id} is not COMPLETED {partly}, it is {counts}"


def _progress(job: Job) -> dict[str, str | int]:
    return {
        "manifestation_id": job.manifestation_id,
        "job_id": job.job_id,
        "status": job.status,
        "total_segments": job.total_segments,
        "completed_segments": job.completed_segments,
        "failed_segments": job.failed_segments,
    }


def _relations_json(head: str, records: Iterator[SegmentRecord]) -> Iterator[str]:
    """The members of `head`, an object, and the segments: stored results are passed on as they are, some at a time."""
    piece = f'{head[:-1]},"segments":['
    separator = ""
    for record in records:
        mappings = record.related or "[]"
        piece += f'{separator}{{"segment_id":{json.dumps(record.segment_id)},"mappings":{mappings}}}'
        separator = ","
        if len(piece) > PIECE_CHARACTERS:
            yield piece
            piece = ""
    yield f"{piece}]}}"
