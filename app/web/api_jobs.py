"""Jobs: looked at a page at a time, and an operator's hand on one; what `python -m app.jobs` does, over HTTP.

Invariant: a page of a job of any size costs the same memory; what is done to a job is what the command does.
"""

import uuid
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query

from app.core.jobs import NotFoundError
from app.core.unsent import RESEND_AFTER_SECONDS
from app.jobs import repairs
from app.jobs.printing import explain_miscount
from app.jobs.producer import find_job
from app.jobs.wiring import COMPLETED_QUEUE, SEGMENTS_QUEUE, STORE, require
from app.models import Id, JobStatus
from app.web.bodies import (
    Cancelled,
    JobDetails,
    JobPage,
    JobRow,
    Reconciled,
    Retried,
    SegmentPage,
    SegmentRow,
    SegmentsByStatus,
    SegmentStatus,
    Waiting,
)
from app.web.ids import JobId, read_job_id
from app.web.paging import USUALLY_ON_A_PAGE, Cursor, Limit, decode_cursor, encode_cursor
from app.web.parts import Services
from app.web.problems import FieldError, may_answer
from app.web.sending import Sender

router: Final = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", responses=may_answer())
def list_jobs(
    parts: Services,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state.")] = None,
    manifestation_id: Annotated[Id | None, Query(description="Only jobs of this text.")] = None,
    limit: Limit = USUALLY_ON_A_PAGE,
    cursor: Cursor = None,
) -> JobPage:
    """Jobs, the newest first, a page at a time."""
    after = None if cursor is None else _job_key(cursor)
    found = parts.views.list_jobs(limit + 1, status=status, manifestation_id=manifestation_id, after=after)
    page = found[:limit]
    following = encode_cursor(page[-1].created_at.isoformat(), page[-1].job_id) if len(found) > limit else None
    return JobPage(jobs=[JobRow.of(job) for job in page], next_cursor=following)


@router.get("/{job_id}", responses=may_answer(404))
def read_job(job_id: JobId, parts: Services) -> JobDetails:
    """A job with its segments counted by status, and what the unfinished ones wait for."""
    known = read_job_id(job_id)
    row = JobRow.of(find_job(parts.jobs, known))
    return JobDetails(
        **row.model_dump(),
        segments=SegmentsByStatus.model_validate(parts.views.count_segments(known)),
        outlook=Waiting.model_validate(parts.repairs.look_ahead(known, RESEND_AFTER_SECONDS)),
    )


@router.get("/{job_id}/segments", responses=may_answer(404))
def list_segments(
    job_id: JobId,
    parts: Services,
    status: Annotated[SegmentStatus | None, Query(description="Only segments in this state.")] = None,
    limit: Limit = USUALLY_ON_A_PAGE,
    cursor: Cursor = None,
) -> SegmentPage:
    """A job's segments by their id, a page at a time; why those that failed did is in `error`."""
    after = None if cursor is None else decode_cursor(cursor, 1)[0]
    job = find_job(parts.jobs, read_job_id(job_id))
    found = parts.views.list_segments(job.job_id, limit + 1, status=status, after=after)
    page = found[:limit]
    return SegmentPage(
        job_id=uuid.UUID(job.job_id),
        segments=[SegmentRow.of(state) for state in page],
        next_cursor=encode_cursor(page[-1].segment_id) if len(found) > limit else None,
    )


@router.post("/{job_id}/retry", status_code=202, responses=may_answer(404))
def retry_job(job_id: JobId, parts: Services, sender: Sender) -> Retried:
    """Do the FAILED segments again, with no attempt counted; takes a cancellation back. Messages are sent behind it."""
    require(*STORE, *SEGMENTS_QUEUE)
    known = read_job_id(job_id)
    requeued = repairs.retry(parts.repairs, parts.jobs, known)
    sender.send(parts.producer, known)
    return Retried(**JobRow.of(find_job(parts.jobs, known)).model_dump(), requeued_segments=requeued)


@router.post("/{job_id}/cancel", responses=may_answer(404, 409))
def cancel_job(job_id: JobId, parts: Services) -> Cancelled:
    """End the job: its unfinished segments are FAILED, and nothing that still runs is stored. Twice does it once."""
    known = read_job_id(job_id)
    ended = repairs.cancel(parts.repairs, parts.jobs, known)
    return Cancelled(**JobRow.of(find_job(parts.jobs, known)).model_dump(), ended_segments=ended)


@router.post("/{job_id}/reconcile", responses=may_answer(404))
def reconcile_job(
    job_id: JobId,
    parts: Services,
    after_seconds: Annotated[
        float,
        Query(
            ge=0,
            le=1e9,
            allow_inf_nan=False,
            description="Send a message again when the last one is older than this, doubled with each repeat.",
        ),
    ] = RESEND_AFTER_SECONDS,
) -> Reconciled:
    """Mend wrong counters, a forgotten completion and lost messages, as a worker's sweep does, now."""
    require(*STORE, *SEGMENTS_QUEUE, *COMPLETED_QUEUE)
    job = find_job(parts.jobs, read_job_id(job_id))
    on_queue = parts.queue.facts().messages
    found = repairs.reconcile(parts.repairs, parts.sweep, job.job_id, after_seconds, on_queue)
    return Reconciled(
        job_id=uuid.UUID(job.job_id),
        is_complete=found.is_complete,
        found_nothing=found.found_nothing,
        counters_mended=bool(found.repaired),
        jobs_ended=found.swept.jobs_ended,
        completions_sent=found.swept.completions_sent,
        segments_resent=found.swept.segments_resent,
        segments_left=found.left,
        segments_without_span=found.swept.segments_without_span,
        remarks=[explain_miscount(each) for each in found.miscounted],
        outlook=Waiting.model_validate(found.outlook),
    )


def _job_key(cursor: str) -> tuple[datetime, str]:
    """(created_at, job id) of the last job that was given. Raises `FieldError`."""
    created_at, job_id = decode_cursor(cursor, 2)
    try:
        moment = datetime.fromisoformat(created_at)
        known = read_job_id(job_id)
    except (ValueError, NotFoundError):
        raise FieldError("cursor", "is not one that this service has given; leave it out for the first page") from None
    return moment, known
