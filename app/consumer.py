"""The loop: receive, hand over, act on outcomes; lanes, drain, liveness.

Invariant: a message that was received gets exactly one outcome from this process, or none when the process dies, and
then SQS delivers it again. Every thread's progress is watched: a lane that hangs ends the process, not the work.

A *lane* is a thread that takes one batch down the whole road and then the next. Several lanes overlap the waiting of
one with the work of another. They poll one after the other, so that a single message wakes one lane and not all; a
batch that is at least half full tells of a backlog, and until it is worked off they poll at the same time.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aws_sqs_consumer import Consumer, Message

from app.delivery import Delivery, read_delivery
from app.errors import OutageError, PoisonError, ProcessorError
from app.metrics import Tally
from app.outcomes import Dead, Done, Hide, Outcome
from app.parts import Parts, Service
from app.ports import SegmentRequest
from app.sqs import SERVICE
from app.stopping import Signals, Stop

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_STALLED: Final = 3
TURN_SECONDS: Final = 0.2
BUG_SECONDS: Final = 30.0
HAND_BACK_SECONDS: Final = 3.0
"""Kept of the grace for giving back what could not be finished."""
CLOSE_SECONDS: Final = 1.0


class SimpleConsumer(Consumer):  # type: ignore[misc]  # the library is untyped
    """A consumer of the segment queue, with the constructor of `aws_sqs_consumer.Consumer`.

    `start()` returns when it was told to stop and all that was in hand is finished or given back. A subclass may
    override `handle_message(message)`: it is then called for each message, which is deleted when it returns and comes
    back when it raises.
    """

    wiring: ClassVar[Callable[["SimpleConsumer"], Parts]]
    """Builds the parts from the settings; set by `app.main`."""

    def __init__(
        self,
        queue_url: str,
        region: str | None = None,
        sqs_client: Any = None,
        attribute_names: Sequence[str] = (),
        message_attribute_names: Sequence[str] = (),
        batch_size: int | None = None,
        wait_time_seconds: int | None = None,
        visibility_timeout_seconds: int | None = None,
        polling_wait_time_ms: int | None = None,
    ) -> None:
        """What is None comes from the settings when the consumer starts. Nothing is connected before that."""
        super().__init__(
            queue_url,
            region=region or "set at start",
            sqs_client=sqs_client or _MADE_AT_START,
            attribute_names=list(attribute_names),
            message_attribute_names=list(message_attribute_names),
            batch_size=10 if batch_size is None else batch_size,
            wait_time_seconds=20 if wait_time_seconds is None else wait_time_seconds,
            visibility_timeout_seconds=visibility_timeout_seconds,
            polling_wait_time_ms=50 if polling_wait_time_ms is None else polling_wait_time_ms,
        )
        self.given_region = region
        self.given_client: SQSClient | None = sqs_client
        self._given = {
            "batch_size": batch_size,
            "wait_time_seconds": wait_time_seconds,
            "visibility_timeout_seconds": visibility_timeout_seconds,
            "polling_wait_time_ms": polling_wait_time_ms,
        }
        self.stopping = Stop()
        self._parts: Parts | None = None
        self._tally = Tally()
        self._turn = threading.Lock()
        self._has_backlog = False

    def complete(self, **settings: int) -> None:
        """Take from the settings what the constructor was not given."""
        for name, value in settings.items():
            if self._given[name] is None:
                setattr(self, name, value)

    @property
    def handles_itself(self) -> bool:
        """Whether a subclass has its own `handle_message`."""
        return type(self).handle_message is not SimpleConsumer.handle_message

    def handle_message(self, message: Message) -> None:
        """Process one message by the whole road and act on its outcome; for those who call it by hand."""
        received_at = time.monotonic()
        self._work([read_delivery(vars(message), received_at)], self._wired())

    def start(self) -> None:
        """Consume until told to stop. Exits the process with a code other than 0 when a lane hangs."""
        code = self.run()
        if code:
            sys.exit(code)

    def stop(self) -> None:
        """Ask it to stop, from any thread or signal handler."""
        self._running = False
        self.stopping.set()

    def run(self, when_wired: Callable[[], None] = lambda: None) -> int:
        """Consume until told to stop; the exit code. Raises `ConfigurationError` when it can't even start.

        `when_wired` is called once everything is built and before the first message.
        """
        self._running = True
        with Signals(self.stop):
            parts = self._wired()
            if self.stopping.is_set():
                return EXIT_OK
            when_wired()
            helpers_stop = Stop()
            self._start_threads(parts, helpers_stop)
            log.info(
                "Consuming %s, %d batches of %d in hand at most",
                parts.queue.name,
                parts.lanes,
                self.batch_size,
            )
            code = self._supervise(parts)
            self._drain(parts, helpers_stop)
            return code

    def _wired(self) -> Parts:
        if self._parts is None:
            self._parts = type(self).wiring(self)
        return self._parts

    def _start_threads(self, parts: Parts, helpers_stop: Stop) -> None:
        for name, helper in parts.helpers:
            threading.Thread(target=helper.run, args=(helpers_stop,), name=name, daemon=True).start()
        for number in range(parts.lanes):
            name = f"lane-{number + 1}"
            parts.progress[name] = time.monotonic()
            threading.Thread(target=self._lane, args=(parts, name), name=name, daemon=True).start()

    def _lane(self, parts: Parts, name: str) -> None:
        """Batch after batch; no exception ends it."""
        while not self.stopping.is_set():
            parts.progress[name] = time.monotonic()
            try:
                if parts.gate.is_open or self._waits_for_gate(parts, name):
                    self._round(parts)
            except Exception:
                log.exception("A batch met a bug; its messages come back when their visibility ends")
                self.stopping.wait(1.0)

    def _waits_for_gate(self, parts: Parts, name: str) -> bool:
        """A pause is progress, too."""
        while not parts.gate.is_open and not self.stopping.is_set():
            parts.progress[name] = time.monotonic()
            parts.gate.wait_until_open(self.stopping)
        return not self.stopping.is_set()

    def _round(self, parts: Parts) -> None:
        messages = self._receive(parts)
        if messages is None:
            return
        if not messages:
            self.stopping.wait(self.polling_wait_time_ms / 1000)
            return
        received_at = time.monotonic()
        self._work([read_delivery(message, received_at) for message in messages], parts)

    def _receive(self, parts: Parts) -> list[Any] | None:
        """A poll; None when it is another lane's turn to be parked in one, or nothing may be received now."""
        if self._has_backlog:
            return self._poll(parts)
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return None
        try:
            if self.stopping.is_set() or not parts.gate.is_open:
                return None
            return self._poll(parts)
        finally:
            self._turn.release()

    def _poll(self, parts: Parts) -> list[Any] | None:
        try:
            messages = parts.queue.receive(self.batch_size, self.wait_time_seconds, self.visibility_timeout_seconds)
        except ProcessorError as error:
            self._has_backlog = False
            parts.gate.close(SERVICE, error.reason if isinstance(error, OutageError) else str(error))
            return None
        self._has_backlog = 2 * len(messages) >= self.batch_size
        return messages

    def _work(self, deliveries: Sequence[Delivery], parts: Parts) -> None:
        """One batch down the road. Whatever arrives while stopping is handed back at once."""
        with parts.heartbeat.watching(deliveries):
            if self.stopping.is_set():
                outcomes: list[Outcome] = [Hide(0, "stopping")] * len(deliveries)
            elif parts.service is None:
                outcomes = [self._handle(delivery) for delivery in deliveries]
            else:
                outcomes = self._process(deliveries, parts, parts.service)
            parts.acknowledger.act(deliveries, outcomes)
        self._tally.add(outcomes)

    def _process(self, deliveries: Sequence[Delivery], parts: Parts, service: Service) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        requests: dict[int, SegmentRequest] = {}
        for at, delivery in enumerate(deliveries):
            try:
                requests[at] = delivery.read_request()
                parts.heartbeat.name(delivery, requests[at].job_id, requests[at].segment_id)
            except PoisonError as error:
                log.error("Message %s is poison: %s", delivery.message_id, error)
                outcomes[at] = Dead(str(error), recorded=False)
        if requests:
            try:
                age_seconds = time.monotonic() - deliveries[0].received_at
                done = service.process(list(requests.values()), age_seconds)
            except Exception:
                log.exception("A batch of %d messages met a bug", len(requests))
                done = [Hide(BUG_SECONDS, "a bug")] * len(requests)
            outcomes.update(zip(requests, done, strict=True))
        return [outcomes[at] for at in range(len(deliveries))]

    def _handle(self, delivery: Delivery) -> Outcome:
        message = Message(
            MessageId=delivery.message_id,
            ReceiptHandle=delivery.handle,
            Body=delivery.body,
            Attributes={
                "ApproximateReceiveCount": str(delivery.receive_count),
                "SentTimestamp": str(delivery.sent_at_ms),
            },
            MessageAttributes=dict(delivery.attributes),
        )
        try:
            self.handle_message(message)
        except Exception as error:
            log.exception("Message %s could not be handled and comes back", delivery.message_id)
            return Hide(BUG_SECONDS, type(error).__name__)
        return Done()

    def _supervise(self, parts: Parts) -> int:
        """Watch the lanes until told to stop, or until one hangs."""
        while not self.stopping.wait(1.0):
            self._report()
            slowest = min(parts.progress, key=parts.progress.__getitem__)
            still = time.monotonic() - parts.progress[slowest]
            if still > parts.stall_seconds:
                log.critical("%s has made no progress for %.0f s: exiting to be restarted", slowest, still)
                self.stop()
                return EXIT_STALLED
        log.info("Stopping: no new messages, finishing what is in hand")
        return EXIT_OK

    def _report(self, *, at_once: bool = False) -> None:
        if line := self._tally.report(at_once=at_once):
            log.info("%s", line)

    def _drain(self, parts: Parts, helpers_stop: Stop) -> None:
        """Finish or give back what is in hand, and keep the deadline whatever hangs."""
        deadline = time.monotonic() + parts.grace_seconds
        kept = min(HAND_BACK_SECONDS, parts.grace_seconds / 3)
        _wait_for(lambda: not parts.heartbeat.in_hand()[0], deadline - kept)
        helpers_stop.set()
        deliveries, _ = parts.heartbeat.in_hand()
        if deliveries:
            _within(deadline, lambda: self._hand_back(parts))
        _wait_for(parts.is_idle, deadline)
        _within(min(deadline, time.monotonic() + CLOSE_SECONDS), parts.close)
        log.info(
            "Stopped; %s",
            f"{len(deliveries)} messages were handed back" if deliveries else "nothing is in hand",
        )

    def _hand_back(self, parts: Parts) -> None:
        """Rows first: a run that wakes up later finds its token gone and writes nothing."""
        deliveries, claims = parts.heartbeat.in_hand()
        try:
            if parts.service is not None and claims:
                parts.service.give_back(claims)
        except ProcessorError as error:
            log.warning("%d claims could not be given back and end with their lease: %s", len(claims), error)
        parts.acknowledger.act(deliveries, [Hide(0, "handed back")] * len(deliveries))


class _MadeAtStart:
    """Stands where the library wants a client, so that building a consumer connects to nothing."""


_MADE_AT_START: Final = _MadeAtStart()


def _wait_for(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _within(deadline: float, step: Callable[[], None]) -> None:
    """Run `step` and return when it is done or the deadline is reached; what hangs is left behind."""
    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
