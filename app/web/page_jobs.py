"""The jobs at ``/`` and one job at ``/ui/jobs/{id}``: how far, how fast, what failed and why, retry and cancel.

Invariant: a form changes nothing unless it came from a page of the same session; and before segments are sent back to
QUEUED the queue that their messages go to has answered.
"""

import uuid
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.core.jobs import ENDED, JOB_STATUSES, SEGMENT_STATUSES, Job
from app.core.overview import Speed
from app.jobs import repairs
from app.jobs.producer import find_job
from app.jobs.standing import read_depth
from app.jobs.wiring import SEGMENTS_QUEUE, STORE, require
from app.web.ids import read_job_id
from app.web.page_login import asks_for_own_form, asks_for_session
from app.web.page_render import HEADERS, InputError, PageRoute, link, render
from app.web.parts import Services
from app.web.sending import Sender

JOBS_A_PAGE: Final = 25
SEGMENTS_A_PAGE: Final = 50
REFRESH_SECONDS: Final = 5
DONE: Final = {
    "retried": "The failed segments are queued again. Their messages are being sent.",
    "nothing": "The job has no failed segments: nothing was changed.",
    "cancelled": "The job is cancelled. What had not ended is FAILED now; retrying takes that back.",
    "sending": "The messages that were never sent are being sent.",
}

router = APIRouter(route_class=PageRoute, dependencies=[Depends(asks_for_session)], include_in_schema=False)


@router.get("/")
def show_jobs(
    request: Request,
    parts: Services,
    status: str = "",
    before: str = "",
    refresh: bool = False,
) -> Response:
    """The jobs, the newest first."""
    if status and status not in JOB_STATUSES:
        raise InputError(f"status: must be one of {', '.join(JOB_STATUSES)}, not {status!r:.40}")
    require(*STORE)
    bookmark = _read_bookmark(before) if before else None
    found = parts.views.list_jobs(JOBS_A_PAGE + 1, status=status or None, manifestation_id=None, after=bookmark)
    jobs = found[:JOBS_A_PAGE]
    older = None
    if len(found) > JOBS_A_PAGE:
        last = jobs[-1]
        older = link("/", status=status or None, before=f"{last.created_at.isoformat()}~{last.job_id}")
    response = render(
        request,
        "jobs.html",
        jobs=[(job, Speed.of(job)) for job in jobs],
        counts=parts.overview.count_jobs(),
        statuses=JOB_STATUSES,
        status=status,
        older=older,
        is_first=bookmark is None,
        refresh=refresh,
        refresh_seconds=REFRESH_SECONDS,
    )
    return _refreshed(response, refresh)


@router.get("/ui/jobs/{job_id}")
def show_job(
    request: Request,
    parts: Services,
    job_id: str,
    segments: str = "",
    after: Annotated[str | None, Query(max_length=512)] = None,
    did: str = "",
    refresh: bool = False,
) -> Response:
    """One job, and its segments of one status: the failed ones, unless others are asked for."""
    require(*STORE)
    job = _find(parts, job_id)
    if segments and segments not in SEGMENT_STATUSES:
        raise InputError(f"segments: must be one of {', '.join(SEGMENT_STATUSES)}, not {segments!r:.40}")
    if after is not None and "\x00" in after:
        raise InputError("after: must not contain the NUL character")
    standing = parts.standings.look_at(job.job_id)
    usual = (name for name in ("FAILED", "RETRYING", "IN_PROGRESS") if standing.rows[name])
    chosen = segments or next(usual, "FAILED")
    rows = parts.views.list_segments(job.job_id, SEGMENTS_A_PAGE + 1, status=chosen, after=after)
    more = None
    if len(rows) > SEGMENTS_A_PAGE:
        rows = rows[:SEGMENTS_A_PAGE]
        more = link(f"/ui/jobs/{job.job_id}", segments=chosen, after=rows[-1].segment_id)
    average = Speed.of(job)
    response = render(
        request,
        "job.html",
        job=job,
        average=average,
        left=standing.lately.seconds_left(job) or average.seconds_left(job),
        standing=standing,
        depth=None if job.has_ended else read_depth(parts),
        statuses=SEGMENT_STATUSES,
        miscounted=parts.repairs.find_miscounted(job.job_id),
        chosen=chosen,
        rows=rows,
        more=more,
        did=DONE.get(did, ""),
        can_cancel=job.status not in ENDED,
        refresh=refresh,
        refresh_seconds=REFRESH_SECONDS,
    )
    return _refreshed(response, refresh)


@router.post("/ui/jobs/{job_id}/retry", dependencies=[Depends(asks_for_own_form)])
def retry(parts: Services, job_id: str, sender: Sender) -> Response:
    """Queue the failed segments again; their messages go out behind the answer."""
    require(*STORE, *SEGMENTS_QUEUE)
    job = _find(parts, job_id)
    parts.queue.facts()
    requeued = repairs.retry(parts.repairs, parts.jobs, job.job_id)
    if requeued:
        sender.send(parts.producer, job.job_id)
    return _back(job.job_id, "retried" if requeued else "nothing")


@router.post("/ui/jobs/{job_id}/send", dependencies=[Depends(asks_for_own_form)])
def send(parts: Services, job_id: str, sender: Sender) -> Response:
    """Send the messages that were never sent, behind the answer."""
    require(*STORE, *SEGMENTS_QUEUE)
    job = _find(parts, job_id)
    parts.queue.facts()
    sender.send(parts.producer, job.job_id)
    return _back(job.job_id, "sending")


@router.post("/ui/jobs/{job_id}/cancel", dependencies=[Depends(asks_for_own_form)])
def cancel(parts: Services, job_id: str) -> Response:
    """End the job."""
    require(*STORE)
    job = _find(parts, job_id)
    repairs.cancel(parts.repairs, parts.jobs, job.job_id)
    return _back(job.job_id, "cancelled")


def _find(parts: Services, job_id: str) -> Job:
    return find_job(parts.jobs, read_job_id(job_id))


def _back(job_id: str, did: str) -> Response:
    return RedirectResponse(link(f"/ui/jobs/{job_id}", did=did), 303, HEADERS)


def _read_bookmark(text: str) -> tuple[datetime, str]:
    moment, _, job_id = text.partition("~")
    try:
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None:
            raise ValueError
        return at, str(uuid.UUID(job_id))
    except ValueError:
        raise InputError("before: must be what a link to older jobs holds") from None


def _refreshed(response: Response, refresh: bool) -> Response:
    """A page that asks for itself again, where somebody wants that: no script is needed for it."""
    if refresh:
        response.headers["Refresh"] = str(REFRESH_SECONDS)
    return response
