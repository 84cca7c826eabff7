"""Keeps what is in hand ours: renews leases in PostgreSQL, then visibility in SQS, at a third of the time-out.

Invariant: a message's visibility is never extended past a lease that could not be renewed, so that what this
process can no longer hold comes back for others. A claim that is lost is marked, and its message left alone. What is in
hand is known by the thread that has it, so that what a hung one holds can be left to its leases.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from app.delivery import Delivery
from app.errors import ProcessorError
from app.logs import fields
from app.ports import Claimed
from app.sqs import MAX_VISIBILITY_SECONDS
from app.stopping import Stop

log = logging.getLogger(__name__)

BEATS_A_TIMEOUT: Final = 3
LEASE_MARGIN_SECONDS: Final = 1.5
"""The lease ends so long before the visibility, both counted from the receive."""


class Renewer(Protocol):
    """Extends leases; see `app.ports.ClaimStore`."""

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        """The tokens that are still ours. Raises `ProcessorError`."""
        ...


class Hider(Protocol):
    """Extends visibility; see `app.sqs.Queue`."""

    def hide(self, handles: Sequence[tuple[str, int]]) -> dict[int, str]:
        """Position to reason of the refused. Raises `ProcessorError`."""
        ...


class Heartbeat:
    """What is in hand, waiting or running, and the thread that keeps it. Implements `app.ports.Leases`."""

    def __init__(
        self,
        renewer: Renewer | None,
        queue: Hider,
        *,
        visibility_seconds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a `renewer` there are no claims: only visibility is kept."""
        self._renewer = renewer
        self._queue = queue
        self._visibility_seconds = visibility_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._deliveries: dict[str, Delivery] = {}
        self._segments: dict[str, tuple[str, str]] = {}
        self._claims: dict[str, Claimed] = {}
        self._lost: set[str] = set()
        self._holders: dict[str, threading.Thread] = {}
        """By handle and by token."""

    @property
    def lease_seconds(self) -> float:
        """How long a claim holds, from the receive of its message."""
        return self._visibility_seconds - LEASE_MARGIN_SECONDS

    @contextmanager
    def watching(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """They are in hand inside this context, held by the calling thread."""
        with self._lock:
            self._deliveries.update((delivery.handle, delivery) for delivery in deliveries)
            self._holders.update((delivery.handle, threading.current_thread()) for delivery in deliveries)
        try:
            yield
        finally:
            self.let_go(deliveries)

    def let_go(self, deliveries: Collection[Delivery]) -> None:
        """They have their outcome, or are about to get it: their visibility is not extended any more."""
        with self._lock:
            for delivery in deliveries:
                self._deliveries.pop(delivery.handle, None)
                self._segments.pop(delivery.handle, None)
                self._holders.pop(delivery.handle, None)

    def name(self, delivery: Delivery, job_id: str, segment_id: str) -> None:
        """`delivery` asks for that segment: when its claim is lost, the message is left alone."""
        with self._lock:
            self._segments[delivery.handle] = (job_id, segment_id)

    def hold(self, claims: Collection[Claimed]) -> None:
        """Renew these from now on; the calling thread holds them."""
        with self._lock:
            self._claims.update((claim.token, claim) for claim in claims)
            self._holders.update((claim.token, threading.current_thread()) for claim in claims)

    def release(self, claims: Collection[Claimed]) -> None:
        """They have ended."""
        with self._lock:
            for claim in claims:
                self._claims.pop(claim.token, None)
                self._holders.pop(claim.token, None)
                self._lost.discard(claim.token)

    def abandon(self, threads: Collection[threading.Thread]) -> tuple[list[Delivery], list[Claimed]]:
        """Leave what these threads hold to its leases and visibility; it is not in hand any more."""
        with self._lock:
            keys = [key for key, holder in self._holders.items() if holder in threads]
            deliveries = [self._deliveries.pop(key) for key in keys if key in self._deliveries]
            claims = [self._claims.pop(key) for key in keys if key in self._claims]
        return deliveries, [claim for claim in claims if claim.token not in self._lost]

    def is_lost(self, claim: Claimed) -> bool:
        """Somebody else has claimed it since."""
        return claim.token in self._lost

    def in_hand(self) -> tuple[list[Delivery], list[Claimed]]:
        """The messages and the claims that have no outcome yet."""
        with self._lock:
            return list(self._deliveries.values()), [c for c in self._claims.values() if c.token not in self._lost]

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
        """Renew every claim in hand, then the visibility of every message whose claim still stands."""
        deliveries, claims = self.in_hand()
        if claims:
            self._renew(claims)
        if deliveries:
            self._extend(deliveries)

    def _renew(self, claims: Sequence[Claimed]) -> None:
        if self._renewer is None:
            return
        kept = self._renewer.renew(claims, self.lease_seconds)
        with self._lock:
            gone = [c for c in claims if c.token not in kept and c.token in self._claims]
            self._lost.update(claim.token for claim in gone)
            self._let_go({(claim.job_id, claim.segment_id) for claim in gone})
        for claim in gone:  # no warning: its run may be ending well just now; if not, the service says so
            ids = fields(job_id=claim.job_id, segment_id=claim.segment_id, attempt=claim.attempts)
            log.info("The lease on segment %s of job %s is gone", claim.segment_id, claim.job_id, extra=ids)

    def _let_go(self, segments: Collection[tuple[str, str]]) -> None:
        """Their messages are not in hand any more, whatever becomes of the batch: an old receipt may still act."""
        for handle, segment in self._segments.items():
            if segment in segments:
                self._deliveries.pop(handle, None)

    def _extend(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            kept = [delivery for delivery in deliveries if delivery.handle in self._deliveries]
        handles = [(delivery.handle, self._seconds_for(delivery)) for delivery in kept]
        refused = self._queue.hide([handle for handle in handles if handle[1] > 0])
        if refused:
            log.info("The visibility of %d messages was not extended, they may be delivered again", len(refused))

    def _seconds_for(self, delivery: Delivery) -> int:
        """SQS ends every visibility 12 h after the receive; a longer one is refused."""
        left = MAX_VISIBILITY_SECONDS - 1 - (self._clock() - delivery.received_at)
        return min(self._visibility_seconds, int(left))
