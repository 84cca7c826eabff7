"""Keeps what is in flight ours: renews leases in PostgreSQL, then visibility in SQS, at a third of the time-out.

Invariant: a message's visibility is never extended past a lease that could not be renewed, so that what this process
can no longer hold comes back for others.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from app.core.segments import Claimed
from app.errors import ProcessorError
from app.logs import fields
from app.sqs.delivery import Delivery
from app.sqs.queue import MAX_VISIBILITY_SECONDS
from app.threads.stopping import Stop
from app.worker.in_flight import InFlight

log = logging.getLogger(__name__)

BEATS_A_TIMEOUT: Final = 3
LEASE_MARGIN_SECONDS: Final = 1.5


class Renewer(Protocol):
    """Extends leases; see `app.core.ports.ClaimStore`."""

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        """The tokens that are still ours. Raises `ProcessorError`."""
        ...


class Hider(Protocol):
    """Extends visibility; see `app.sqs.queue.Queue`."""

    def hide(self, handles: Sequence[tuple[str, int]]) -> dict[int, str]:
        """Position to reason of the refused. Raises `ProcessorError`."""
        ...


def lease_seconds_of(visibility_seconds: int) -> float:
    """How long a claim holds: it ends a little before the visibility, both counted from the receive."""
    return visibility_seconds - LEASE_MARGIN_SECONDS


class Heartbeat:
    """The thread that renews what is in flight. Without a `renewer` there are no claims: only visibility is kept."""

    def __init__(
        self,
        in_flight: InFlight,
        queue: Hider,
        *,
        visibility_seconds: int,
        renewer: Renewer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_flight = in_flight
        self._queue = queue
        self._visibility_seconds = visibility_seconds
        self._renewer = renewer
        self._clock = clock

    def run(self, stop: Stop) -> None:
        """Beat until `stop`; nothing that fails ends it. The first failure of several in a row is told."""
        failed_before = False
        while not stop.wait(self._visibility_seconds / BEATS_A_TIMEOUT):
            try:
                self.beat()
                failed_before = False
            except ProcessorError as error:
                level = logging.DEBUG if failed_before else logging.WARNING
                log.log(level, "What is in hand could not be renewed, the next beat tries again: %s", error)
                failed_before = True
            except Exception:
                log.exception("A heartbeat failed; the next one tries again")

    def beat(self) -> None:
        """Renew every claim in flight, then the visibility of every message whose claim still stands."""
        deliveries, claims = self._in_flight.snapshot()
        if claims and self._renewer is not None:
            self._renew(claims, self._renewer)
        if deliveries:
            self._extend(deliveries)

    def _renew(self, claims: Sequence[Claimed], renewer: Renewer) -> None:
        kept = renewer.renew(claims, lease_seconds_of(self._visibility_seconds))
        for claim in self._in_flight.lose([claim for claim in claims if claim.token not in kept]):
            # No warning: the segment may be settled in this moment; if it is not, the service logs the lost lease.
            ids = fields(job_id=claim.job_id, segment_id=claim.segment_id, attempt=claim.attempts)
            log.info("The lease on segment %s of job %s is gone", claim.segment_id, claim.job_id, extra=ids)

    def _extend(self, deliveries: Sequence[Delivery]) -> None:
        handles = [(delivery.handle, self._seconds_for(delivery)) for delivery in self._in_flight.still(deliveries)]
        refused = self._queue.hide([handle for handle in handles if handle[1] > 0])
        if refused:
            log.info("The visibility of %d messages was not extended, they may be delivered again", len(refused))

    def _seconds_for(self, delivery: Delivery) -> int:
        """SQS ends every visibility 12 h after the receive; a longer one is refused."""
        left = MAX_VISIBILITY_SECONDS - 1 - (self._clock() - delivery.received_at)
        return min(self._visibility_seconds, int(left))
