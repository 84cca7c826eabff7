"""The loop: receive, hand over, act on outcomes; lanes, liveness.

Invariant: a message that was received gets exactly one outcome from this process, or none when the process dies, and
then SQS delivers it again. Every thread's progress is watched: a lane or a helper that hangs ends the process, not the
work. What a hung lane holds gets no outcome, as if the process had died on it: its leases run out, and the next claim
finds out whether it was to blame.

A *lane* is a thread that takes one batch down the whole road and then the next. Several lanes overlap the waiting of
one with the work of another.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from app.core.outcomes import Hide, Outcome
from app.sqs.delivery import Delivery
from app.threads.progress import MarkingStop
from app.threads.stopping import Stop
from app.worker.drain import Drain
from app.worker.parts import Limits, Parts
from app.worker.poller import Poller

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_STALLED: Final = 3
MOST_NAMED: Final = 10


class Loop:
    """Runs once. `stopping` asks it to end, from any thread or signal handler."""

    def __init__(self, parts: Parts, limits: Limits, stopping: Stop) -> None:
        self.parts = parts
        self.limits = limits
        self.stopping = stopping
        self._poller = Poller(parts.queue, parts.gate, limits)

    def run(self) -> int:
        """Consume until told to stop; the exit code."""
        helpers_stop = Stop()
        self._start_threads(helpers_stop)
        limits = self.limits
        most = limits.batch_size * limits.receives_a_batch
        log.info("Consuming %s, %d batches of %d in hand at most", self.parts.queue.name, limits.lanes, most)
        code = self._supervise()
        Drain(self.parts, self._poller, limits).run(helpers_stop)
        return code

    def handle(self, deliveries: Sequence[Delivery]) -> None:
        """These messages down the whole road, in the calling thread. What arrives while stopping goes back at once."""
        with self.parts.in_flight.watching(deliveries):
            self._work(deliveries)

    def _start_threads(self, helpers_stop: Stop) -> None:
        for name, helper in self.parts.helpers.items():
            self._start_thread(name, helper.run, MarkingStop(helpers_stop, self.parts.progress))
        for number in range(self.limits.lanes):
            self._start_thread(f"lane-{number + 1}", self._lane, MarkingStop(self.stopping, self.parts.progress))

    def _start_thread(self, name: str, target: Callable[[Stop], None], stop: Stop) -> None:
        thread = threading.Thread(target=target, args=(stop,), name=name, daemon=True)
        self.parts.progress.watch(thread)
        thread.start()

    def _lane(self, stop: Stop) -> None:
        """Batch after batch; no exception ends it."""
        parts = self.parts
        while not stop.is_set():
            try:
                if parts.gate.is_open or parts.prober.wait_until_open(stop):
                    self._round()
            except Exception:
                log.exception("A batch met a bug; its messages come back when their visibility ends")
                stop.wait(1.0)

    def _round(self) -> None:
        with ExitStack() as in_flight:
            try:
                deliveries = self._poller.receive(self.stopping)
                in_flight.enter_context(self.parts.in_flight.watching(deliveries or ()))
            finally:
                self._poller.end()
            if deliveries:
                self._work(deliveries)
        if deliveries == []:
            self.stopping.wait(self.limits.polling_wait_time_ms / 1000)

    def _work(self, deliveries: Sequence[Delivery]) -> None:
        if self.stopping.is_set():
            self._act(deliveries, [Hide(0, "stopping")] * len(deliveries))
            return
        for handled, outcomes in self.parts.handler.handle(deliveries, self.stopping):
            self._act(handled, outcomes)

    def _act(self, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        with self.parts.meter.step("acknowledge"):
            self.parts.acknowledger.act(deliveries, outcomes)
        self.parts.in_flight.let_go(deliveries)
        self.parts.progress.mark()
        self.parts.tally.add(outcomes)

    def _supervise(self) -> int:
        """Watch the threads until told to stop, or until one hangs."""
        progress = self.parts.progress
        while not self.stopping.wait(1.0):
            if stalled := progress.stalled(self.limits.stall_seconds):
                log.critical("%s has made no progress for %.0f s: exiting to be restarted", *progress.slowest())
                self._abandon(stalled)
                self.stopping.set()
                return EXIT_STALLED
        log.info("Stopping: no new messages, finishing what is in hand")
        return EXIT_OK

    def _abandon(self, stalled: Sequence[threading.Thread]) -> None:
        """What hung threads hold is left as by a crash: given back it would hang the next worker, uncharged."""
        deliveries, claims = self.parts.in_flight.abandon(stalled)
        if not deliveries and not claims:
            return
        named = [f"segment {claim.segment_id} of job {claim.job_id}" for claim in claims[:MOST_NAMED]]
        named += [f"message {delivery.message_id}" for delivery in deliveries[:MOST_NAMED] if not claims]
        more = max(len(claims) or len(deliveries), len(named)) - len(named)
        log.error(
            "What hung threads hold is not given back, it comes back when its leases and visibility end: %s%s",
            ", ".join(named),
            f" and {more} more" if more else "",
        )
