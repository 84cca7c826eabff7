"""The optional HTTP side, over the same code as the command line: ``uvicorn app.relation:app``.

Invariant: the routes and bodies are those of shared/spec/contract.md; importing this module reads no setting and
connects to nothing.
"""

import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import batched
from typing import Annotated, Any, Final, NoReturn

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from app.core.jobs import ConflictError, Job, NotFoundError, SegmentRecord
from app.db.checks import ping
from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.jobs.producer import Sending, check_id, find_job
from app.jobs.wiring import GRAPH, SEGMENTS_QUEUE, STORE, LazyParts, require
from app.logs import one_line
from app.models import AllRelations, JobCreated, JobState
from app.web import page

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 5
BATCH_RECORDS: Final = 100

type Responses = dict[int | str, dict[str, Any]]
NOT_FOUND: Final[Responses] = {404: {"description": "There is no such text or job."}}
CONFLICT: Final[Responses] = {409: {"description": "There are jobs, but none of them is COMPLETED."}}

router = APIRouter()


_parts: Final = LazyParts()


def get_parts() -> LazyParts:
    """The services, one set a process; each is made by the first request that needs it."""
    return _parts


Services = Annotated[LazyParts, Depends(get_parts)]


@router.post("/relation/{manifestation_id:path}", responses=NOT_FOUND)
def create_job(manifestation_id: str, parts: Services) -> JobCreated:
    """Make a job from the text's segmentation or, without one, its pagination, and queue its messages."""
    _check_text(manifestation_id)
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


@router.get("/relation/{job_id}/status", responses=NOT_FOUND)
def read_status(job_id: str, parts: Services) -> JobState:
    """The job as it stands."""
    try:
        known = str(uuid.UUID(job_id))
    except ValueError:
        raise NotFoundError(f"there is no job {job_id!r:.60}: a job's id is a UUID") from None
    return JobState.model_validate(find_job(parts.jobs, known), from_attributes=True)


@router.get(
    "/relation/{manifestation_id:path}/all-relations",
    response_model=AllRelations,
    responses={**NOT_FOUND, **CONFLICT},
)
def read_all_relations(manifestation_id: str, parts: Services) -> StreamingResponse:
    """Every segment of the text with all that is related to it, from the newest COMPLETED job; streamed."""
    _check_text(manifestation_id)
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


@router.get("/healthz")
def read_health(parts: Services) -> dict[str, str]:
    """200 while this process serves and PostgreSQL answers it."""
    ping(parts.engine)
    return {"status": "ok"}


def _relations_json(manifestation_id: str, records: Iterator[SegmentRecord]) -> Iterator[str]:
    """The body of `AllRelations`: the stored results are passed on as they are, a piece a segment."""
    yield f'{{"manifestation_id":{json.dumps(manifestation_id)},"segments":['
    separator = ""
    for batch in batched(records, BATCH_RECORDS):
        yield separator + ",".join(
            f'{{"segment_id":{json.dumps(record.segment_id)},"mappings":{record.related or "[]"}}}' for record in batch
        )
        separator = ","
    yield "]}"


def _check_text(manifestation_id: str) -> None:
    try:
        check_id(manifestation_id)
    except PermanentError as error:
        raise NotFoundError(str(error)) from None


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


def explain(request: Request, error: Exception) -> JSONResponse:
    """The answer to what the services raise; the same shape as FastAPI's own errors."""
    match error:
        case NotFoundError():
            status = 404
        case ConflictError():
            status = 409
        case OutageError() | TransientError():
            status = 503
        case PermanentError():
            status = 422
        case _:
            status = 500
    if status >= 500:
        log.error("%s %s failed: %s", request.method, one_line(request.url.path), one_line(str(error)))
    if isinstance(error, ConfigurationError):
        return JSONResponse({"detail": "the service's settings are not usable; its log says why"}, status)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return JSONResponse({"detail": str(error)}, status, headers)


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    _parts.close()


app = FastAPI(title="Segment Relationship Processor", lifespan=_lifespan)
app.include_router(router)
app.include_router(page.router)
app.add_exception_handler(ProcessorError, explain)
