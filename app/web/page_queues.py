"""``/ui/queues`` and ``/ui/workers``: how much waits, since when, what was given up and why, and who works.

Invariant: looking changes nothing but, for a moment, whether a dead letter is visible.
"""

from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.core.jobs import ConflictError
from app.jobs.wiring import COMPLETED_QUEUE, DEAD_LETTERS, SEGMENTS_QUEUE, STORE, require
from app.sqs.dead_letters import DeadLetter, look
from app.sqs.queue import Queue
from app.web.page_login import asks_for_own_form, asks_for_session
from app.web.page_render import HEADERS, PageRoute, link, render
from app.web.parts import Services

WORKERS_SHOWN: Final = 100
LETTERS_SHOWN: Final = 50
MOST_REDRIVEN: Final = 1_000
"""With one click: a request has an end."""
LOOK_SECONDS: Final = 30
"""So long a dead letter stays hidden when this process dies while it looks."""

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
        letters = _look(dead)
    oldest_job, oldest_completion = parts.overview.ages()
    return render(
        request,
        "queues.html",
        depths=depths,
        max_receive_count=parts.queue.facts().max_receive_count,
        has_dead_letters=dead is not None,
        letters=letters,
        most_shown=LETTERS_SHOWN,
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
    moved, refused = _redrive(dead, parts.queue, message_id)
    where = link("/ui/queues", moved=moved, refused=refused or None)
    return RedirectResponse(where, 303, HEADERS)


@router.get("/ui/workers")
def show_workers(request: Request, parts: Services) -> Response:
    """Who holds segments."""
    require(*STORE)
    workers = parts.overview.list_workers(WORKERS_SHOWN)
    return render(request, "workers.html", workers=workers)


def _look(queue: Queue) -> list[DeadLetter]:
    """Some of the dead letters, `LETTERS_SHOWN` at most."""
    seen: list[DeadLetter] = []
    if queue.facts().waiting:
        with look(queue, LOOK_SECONDS) as hand:
            for letters in hand.receive_all():
                seen += letters
                if len(seen) >= LETTERS_SHOWN:
                    break
    return seen[:LETTERS_SHOWN]


def _redrive(queue: Queue, home: Queue, message_id: str) -> tuple[int, int]:
    """Send one back, or without an id `MOST_REDRIVEN` of them; how many went, and how many SQS refused."""
    moved = refused = 0
    with look(queue) as hand:
        for received in hand.receive_all():
            letters = [letter for letter in received if message_id in ("", letter.message_id)]
            left = hand.redrive(letters, home)
            moved += len(letters) - len(left)
            refused += len(left)
            if moved + refused >= (1 if message_id else MOST_REDRIVEN):
                break
    return moved, refused


def _depth(role: str, queue: Queue) -> Depth:
    facts = queue.facts()
    return Depth(role, queue.name, facts.waiting, facts.messages - facts.waiting)
