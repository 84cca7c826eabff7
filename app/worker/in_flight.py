"""What is in flight: the messages and the claims that have no outcome yet, and which thread has them.

Invariant: what a thread holds is known by that thread, so that what a hung one holds can be left to its leases. A claim
that is lost is marked, and its message left alone.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from app.core.segments import Claimed
from app.sqs.delivery import Delivery


class InFlight:
    """Safe to share between threads. Implements `app.core.ports.Leases`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deliveries: dict[str, Delivery] = {}
        self._segments: dict[str, tuple[str, str]] = {}
        self._claims: dict[str, Claimed] = {}
        self._lost: set[str] = set()
        self._holders: dict[str, threading.Thread] = {}
        """By handle and by token."""

    @contextmanager
    def watching(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """These messages are in flight inside this context, held by the calling thread."""
        with self._lock:
            self._deliveries.update((delivery.handle, delivery) for delivery in deliveries)
            self._holders.update((delivery.handle, threading.current_thread()) for delivery in deliveries)
        try:
            yield
        finally:
            self.let_go(deliveries)

    def let_go(self, deliveries: Collection[Delivery]) -> None:
        """These messages have their outcome, or are about to get it: their visibility is not extended any more."""
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
        """These claims have ended: their leases are not renewed any more."""
        with self._lock:
            for claim in claims:
                self._claims.pop(claim.token, None)
                self._holders.pop(claim.token, None)
                self._lost.discard(claim.token)

    def abandon(self, threads: Collection[threading.Thread]) -> tuple[list[Delivery], list[Claimed]]:
        """Stop renewing what these threads hold; the messages and claims that were given up so."""
        with self._lock:
            keys = [key for key, holder in self._holders.items() if holder in threads]
            deliveries = [self._deliveries.pop(key) for key in keys if key in self._deliveries]
            claims = [self._claims.pop(key) for key in keys if key in self._claims]
        return deliveries, [claim for claim in claims if claim.token not in self._lost]

    def is_lost(self, claim: Claimed) -> bool:
        """Whether another worker has claimed the segment since."""
        return claim.token in self._lost

    def snapshot(self) -> tuple[list[Delivery], list[Claimed]]:
        """The messages and the claims that have no outcome yet."""
        with self._lock:
            return list(self._deliveries.values()), [c for c in self._claims.values() if c.token not in self._lost]

    def lose(self, claims: Collection[Claimed]) -> list[Claimed]:
        """Somebody else has these now; those of them that were in flight.

        Their messages are let go, whatever becomes of the batch: an old receipt may still act.
        """
        with self._lock:
            gone = [claim for claim in claims if claim.token in self._claims]
            self._lost.update(claim.token for claim in gone)
            segments = {(claim.job_id, claim.segment_id) for claim in gone}
            for handle, segment in self._segments.items():
                if segment in segments:
                    self._deliveries.pop(handle, None)
        return gone

    def still(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of the messages that are still in flight."""
        with self._lock:
            return [delivery for delivery in deliveries if delivery.handle in self._deliveries]
