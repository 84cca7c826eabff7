"""Whether this process serves, and whether what it needs does. Asked by platforms, so without a token.

Invariant: a stranger learns which service is down and no more. However many ask, the services are asked once at a time.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app.db.checks import ping
from app.errors import ConfigurationError, ProcessorError
from app.jobs.wiring import LazyParts
from app.logs import one_line
from app.web.auth import may_know_more
from app.web.bodies import Alive, Ready
from app.web.parts import Services
from app.web.problems import SETTINGS_ARE_WRONG, may_answer

log = logging.getLogger(__name__)

router: Final = APIRouter(tags=["health"])

OK: Final = "ok"
DOWN: Final = "down; the server's log and whoever has the token are told why"
KEPT_SECONDS: Final = 1.0
"""What was found is told to others for so long."""


class Readiness:
    """Asks the services whether they answer. Safe to share."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._found: Mapping[str, str] = {}
        self._found_at = -KEPT_SECONDS

    def look(self, parts: LazyParts) -> Mapping[str, str]:
        """Each service to "ok" or the reason, as it was at most a second ago."""
        with self._lock:
            if self._clock() - self._found_at >= KEPT_SECONDS:
                found = _ask_all(parts)
                _tell_changes(self._found, found)
                self._found = found
                self._found_at = self._clock()
            return self._found


def _tell_changes(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Once, not each time that somebody asks."""
    for name, state in now.items():
        if state != OK and state != before.get(name):
            log.warning("Not ready: %s: %s", name, state)
        elif state == OK and before.get(name, OK) != OK:
            log.info("%s is ready again", name)


def _ask_all(parts: LazyParts) -> dict[str, str]:
    checks: dict[str, Callable[[], object]] = {
        "PostgreSQL": lambda: ping(parts.database),
        "Neo4j": parts.graph.ping,
        "SQS": lambda: parts.queue.facts(),
    }
    with ThreadPoolExecutor(len(checks)) as pool:
        return dict(zip(checks, pool.map(_ask, checks.values()), strict=True))


def _ask(check: Callable[[], object]) -> str:
    try:
        check()
    except ConfigurationError as error:
        return f"{SETTINGS_ARE_WRONG}: {one_line(str(error))}"
    except ProcessorError as error:
        return one_line(str(error))
    return OK


_readiness: Final = Readiness()


def get_readiness() -> Readiness:
    """The process's one."""
    return _readiness


@router.get("/healthz", responses=may_answer())
def read_health(parts: Services) -> dict[str, str]:
    """200 while this process serves and PostgreSQL answers it."""
    ping(parts.database)
    return {"status": OK}


@router.get("/health/live")
async def read_liveness() -> Alive:
    """200 while this process serves, whatever else is down."""
    return Alive()


@router.get("/health/ready", responses={503: {"model": Ready, "description": "A service is down; which, and why."}})
def read_readiness(
    request: Request, response: Response, parts: Services, readiness: Annotated[Readiness, Depends(get_readiness)]
) -> Ready:
    """Each service that this one needs, by name; 503 when one of them is down."""
    found = readiness.look(parts)
    if not may_know_more(request):
        found = {name: state if state == OK else DOWN for name, state in found.items()}
    is_ready = all(state == OK for state in found.values())
    if not is_ready:
        response.status_code = 503
    return Ready(status="ok" if is_ready else "down", dependencies=dict(found))
