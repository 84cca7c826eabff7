"""What waits for the workers: asked of the queues and of PostgreSQL, never by a lane.

Invariant: what can't be told now is None, and nothing else fails for it; a service that is known to be down is not
asked.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from app.core.lag import Lag
from app.errors import ProcessorError
from app.sqs.queue import SERVICE, Queue
from app.threads.gate import Gate

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkAhead:
    """`backlog`: messages that a receive would get now. None: nobody could tell, or there is no such thing."""

    backlog: int | None = None
    dead_letters: int | None = None
    lag: Lag | None = None


class Lookout:
    """Asks, for as long as the calls' own time-outs allow: two minutes at most."""

    def __init__(
        self,
        gate: Gate,
        segments: Queue,
        dead_letters: Queue | None = None,
        read_lag: Callable[[], Lag] | None = None,
    ) -> None:
        """`read_lag`: of PostgreSQL; None for a consumer without it."""
        self._gate = gate
        self._segments = segments
        self._dead_letters = dead_letters
        self._read_lag = read_lag
        self.latest = WorkAhead()

    def look(self) -> WorkAhead:
        """How it looks now, kept as `latest`. Never raises `ProcessorError`."""
        self.latest = WorkAhead(
            self._ask(SERVICE, lambda: self._segments.facts().waiting),
            self._ask(SERVICE, self._count_dead),
            self._ask("PostgreSQL", lambda: self._read_lag() if self._read_lag else None),
        )
        return self.latest

    def _count_dead(self) -> int | None:
        return self._dead_letters.facts().messages if self._dead_letters else None

    def _ask[T](self, service: str, question: Callable[[], T]) -> T | None:
        if service in self._gate.down_since:
            return None
        try:
            return question()
        except ProcessorError as error:
            log.debug("%s does not tell how it looks: %s", service, error)
            return None
