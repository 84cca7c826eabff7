"""The end of a run: finish or give back what is in flight, announce what ended, whatever hangs.

Invariant: it keeps its deadline. Stopping hides nothing: what a parked poll still brings is handed back.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from app.core.outcomes import Hide
from app.core.segments import Claimed
from app.errors import ProcessorError
from app.sqs.delivery import Delivery
from app.threads.stopping import Stop
from app.worker.parts import Limits, Parts
from app.worker.poller import Poller

log = logging.getLogger(__name__)

HAND_BACK_SECONDS: Final = 3.0
"""Kept of the grace for giving back what could not be finished."""
CLOSE_SECONDS: Final = 1.0


class Drain:
    """Runs once, after the last receive."""

    def __init__(self, parts: Parts, poller: Poller, limits: Limits) -> None:
        self._parts = parts
        self._poller = poller
        self._wait_time_seconds = limits.wait_time_seconds
        self._grace_seconds = limits.grace_seconds

    def run(self, helpers_stop: Stop) -> None:
        """Return when everything has ended, or `grace_seconds` from now."""
        parts = self._parts
        deadline = time.monotonic() + self._grace_seconds
        finishing_until = deadline - min(HAND_BACK_SECONDS, self._grace_seconds / 3)
        self._say_polls(finishing_until)
        _wait_for(lambda: not self._poller.under_way() and not parts.in_flight.snapshot()[0], finishing_until)
        if cut := len(self._poller.under_way()):
            log.warning("%d poll%s cut; what SQS answers it is hidden for a while", cut, " is" if cut == 1 else "s are")
        deliveries, claims = parts.in_flight.snapshot()
        if deliveries:
            _within(deadline, lambda: self._hand_back(deliveries, claims, deadline))
        _within(min(deadline, time.monotonic() + HAND_BACK_SECONDS), self._catch_up)
        _wait_for(parts.is_idle, deadline)
        helpers_stop.set()
        _within(min(deadline, time.monotonic() + CLOSE_SECONDS), parts.close)
        log.info(
            "Stopped; %s",
            f"{len(deliveries)} messages were handed back" if deliveries else "nothing is in hand",
        )

    def _say_polls(self, until: float) -> None:
        if polls := self._poller.under_way():
            seconds = min(max(polls) + self._wait_time_seconds, until) - time.monotonic()
            log.info(
                "Waiting up to %d s for a poll to end; a second signal ends at once",
                max(1, math.ceil(seconds)),
            )

    def _hand_back(self, deliveries: Sequence[Delivery], claims: Sequence[Claimed], deadline: float) -> None:
        """Rows first: a run that wakes up later finds its token gone and writes nothing.

        A claim that was not given back has just been settled by its lane, whose announcement is waited for.
        """
        parts = self._parts
        parts.in_flight.let_go(deliveries)
        given_back: frozenset[str] = frozenset()
        try:
            if claims:
                given_back = parts.handler.give_back(claims)
        except ProcessorError as error:
            log.warning("%d claims could not be given back and end with their lease: %s", len(claims), error)
        parts.acknowledger.act(deliveries, [Hide(0, "handed back")] * len(deliveries))
        settling = {claim.token for claim in claims if claim.task_id not in given_back}
        _wait_for(lambda: settling.isdisjoint(claim.token for claim in parts.in_flight.snapshot()[1]), deadline)

    def _catch_up(self) -> None:
        """Settle what could not be written before; what can't be written now is claimed again after its lease."""
        try:
            self._parts.handler.catch_up()
        except ProcessorError as error:
            log.warning("What is owed to PostgreSQL can't be stored: %s", error)


def _wait_for(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _within(deadline: float, step: Callable[[], None]) -> None:
    """Run `step` and return when it is done or the deadline is reached; what hangs is left behind."""
    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
