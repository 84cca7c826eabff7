"""``/ui/queues`` and ``/ui/workers``: how much waits, since when, what was given up and why, and who works.

Invariant: looking changes nothing but, for a moment, whether a dead letter is visible.
"""

from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.core.jobs import ConflictError
from app.jobs.wiring import COMPLETED_QUEUE, DEAD_LETTERS, SEGMENTS_QUEUE, STORE, require
from app.sqs.queue import Queue
from app.web.page_letters import MOST_REDRIVEN, MOST_SHOWN, DeadLetters
from app.web.page_login import asks_for_own_form, asks_for_session
from app.web.page_render import HEADERS, PageRoute, link, render
from app.web.parts import Services

WORKERS_SHOWN: Final = 100

router = APIRouter(route_class=PageRoute, dependencies=[Depends(asks_for_session)], include_in_schema=False)


class Depth(NamedTuple):
    """A queue at this moment; approximately, as SQS counts."""

    role: str
    name: str
    waiting: int
    hidden: int
    """Received by somebody, or delayed."""


@router.get("/ui/queues")
def show_queues(request: Request, parts: Services, moved: int | None = None, refused: int = 0) -> Response:
    """The three queues and the dead letters."""
    require(*STORE, *SEGMENTS_QUEUE, *COMPLETED_QUEUE, *DEAD_LETTERS)
    dead = parts.known_dead_letters
    depths = [_depth("input", parts.queue), _depth("completed", parts.completed)]
    letters = []
    if dead is not None:
        depths.append(_depth("dead letters", dead))
        letters = DeadLetters(dead, parts.queue).look()
    oldest_job, oldest_completion = parts.overview.ages()
    return render(
        request,
        "queues.html",
        depths=depths,
        max_receive_count=parts.queue.facts().max_receive_count,
        has_dead_letters=dead is not None,
        letters=letters,
        most_shown=MOST_SHOWN,
        most_redriven=MOST_REDRIVEN,
        oldest_job=oldest_job,
        oldest_completion=oldest_completion,
        moved=moved,
        refused=refused,
    )


@router.post("/ui/queues/redrive", dependencies=[Depends(asks_for_own_form)])
def redrive(parts: Services, message_id: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Send one dead letter, or without an id all of them, back to the input queue."""
    require(*SEGMENTS_QUEUE, *DEAD_LETTERS)
    dead = parts.known_dead_letters
    if dead is None:
        raise ConflictError("SQS_DEAD_LETTER_QUEUE_URL is not set: there is no queue to redrive from")
    done = DeadLetters(dead, parts.queue).redrive(message_id or None)
    where = link("/ui/queues", moved=done.moved, refused=done.refused or None)
    return RedirectResponse(where, 303, HEADERS)


@router.get("/ui/workers")
def show_workers(request: Request, parts: Services) -> Response:
    """Who holds segments."""
    require(*STORE)
    workers = parts.overview.list_workers(WORKERS_SHOWN)
    return render(request, "workers.html", workers=workers)


def _depth(role: str, queue: Queue) -> Depth:
    facts = queue.facts()
    return Depth(role, queue.name, facts.waiting, facts.messages - facts.waiting)
