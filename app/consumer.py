"""The loop: receive, hand over, act on outcomes; lanes, drain, liveness.

Invariant: a message that was received gets exactly one outcome from this process, or none when the process dies, and
then SQS delivers it again. Every thread's progress is watched: a lane or a helper that hangs ends the process, not the
work. What a hung lane holds gets no outcome, as if the process had died on it: its leases run out, and the next claim
finds out whether it was to blame. Stopping hides nothing: what a parked poll still brings is handed back.

A *lane* is a thread that takes one batch down the whole road and then the next. Several lanes overlap the waiting of
one with the work of another. They poll one after the other, so that a single message wakes one lane and not all; a
batch that is at least half full tells of a backlog, and until it is worked off they poll at the same time.
"""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aws_sqs_consumer import Consumer, Message

from app.delivery import Delivery, read_delivery
from app.errors import OutageError, PoisonError, ProcessorError
from app.logs import fields
from app.metrics import Tally
from app.outcomes import Dead, Done, Hide, Outcome
from app.parts import Parts, Service
from app.ports import Claimed, SegmentRequest
from app.progress import MarkingStop
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
MOST_NAMED: Final = 10


class SimpleConsumer(Consumer):  # type: ignore[misc]  # the library is untyped
    """A consumer of the segment queue, with the constructor of `aws_sqs_consumer.Consumer`.

    `start()` returns when it was told to stop and all that was in hand is finished or given back. A subclass may
    override `handle_message(message)`: it is then called for each message, from one thread unless more were asked for.
    The message is deleted when it returns, before the next one is handled, and comes back when it raises.
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
        self._polls: dict[threading.Thread, float] = {}
        """When each poll under way began, until what it brought is in hand."""

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
        """Process one message by the whole road and act on its outcome; for those who call it by hand.

        Nothing for a subclass that calls it from a `handle_message` of its own, as in the library.
        """
        if self.handles_itself:
            return
        parts = self._wired()
        delivery = read_delivery(vars(message), time.monotonic())
        with parts.heartbeat.watching([delivery]):
            self._work([delivery], parts)

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
            self._start_thread(parts, name, helper.run, MarkingStop(helpers_stop, parts.progress))
        for number in range(parts.lanes):
            self._start_thread(parts, f"lane-{number + 1}", self._lane, parts)

    def _start_thread(self, parts: Parts, name: str, target: Callable[..., None], argument: object) -> None:
        thread = threading.Thread(target=target, args=(argument,), name=name, daemon=True)
        parts.progress.watch(thread)
        thread.start()

    def _lane(self, parts: Parts) -> None:
        """Batch after batch; no exception ends it."""
        stop = MarkingStop(self.stopping, parts.progress)
        while not stop.is_set():
            try:
                if parts.gate.is_open or parts.gate.wait_until_open(stop):
                    self._round(parts)
            except Exception:
                log.exception("A batch met a bug; its messages come back when their visibility ends")
                stop.wait(1.0)

    def _round(self, parts: Parts) -> None:
        with ExitStack() as in_hand:
            try:
                messages = self._receive(parts)
                received_at = time.monotonic()
                deliveries = [read_delivery(message, received_at) for message in messages or ()]
                in_hand.enter_context(parts.heartbeat.watching(deliveries))
            finally:
                self._polls.pop(threading.current_thread(), None)
            if deliveries:
                self._work(deliveries, parts)
        if messages == []:
            self.stopping.wait(self.polling_wait_time_ms / 1000)

    def _receive(self, parts: Parts) -> list[Any] | None:
        """A poll; None when it is another lane's turn to be parked in one, or nothing may be received now."""
        if self._has_backlog:
            return self._poll(parts)
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return None
        try:
            return self._poll(parts) if parts.gate.is_open else None
        finally:
            self._turn.release()

    def _poll(self, parts: Parts) -> list[Any] | None:
        self._polls[threading.current_thread()] = time.monotonic()
        if self.stopping.is_set():  # looked at only now, so that whoever stops sees every poll that is begun
            return None
        try:
            messages = parts.queue.receive(self.batch_size, self.wait_time_seconds, self.visibility_timeout_seconds)
        except ProcessorError as error:
            self._has_backlog = False
            parts.gate.close(SERVICE, error.reason if isinstance(error, OutageError) else str(error))
            return None
        self._has_backlog = 2 * len(messages) >= self.batch_size
        return messages

    def _work(self, deliveries: Sequence[Delivery], parts: Parts) -> None:
        """A batch in hand down the road. Whatever arrives while stopping is handed back at once."""
        if self.stopping.is_set():
            self._act(deliveries, [Hide(0, "stopping")] * len(deliveries), parts)
        elif parts.service is None:
            self._handle_each(deliveries, parts)
        else:
            self._act(deliveries, self._process(deliveries, parts, parts.service), parts)

    def _act(self, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome], parts: Parts) -> None:
        parts.acknowledger.act(deliveries, outcomes)
        parts.heartbeat.let_go(deliveries)
        parts.progress.mark()
        self._tally.add(outcomes)

    def _handle_each(self, deliveries: Sequence[Delivery], parts: Parts) -> None:
        """Each by itself, so that a crash repeats one at most; those not begun when it is time to stop go back."""
        for at, delivery in enumerate(deliveries):
            if self.stopping.is_set():
                self._act(deliveries[at:], [Hide(0, "stopping")] * len(deliveries[at:]), parts)
                return
            self._act([delivery], [self._handle(delivery)], parts)

    def _process(self, deliveries: Sequence[Delivery], parts: Parts, service: Service) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        requests: dict[int, SegmentRequest] = {}
        for at, delivery in enumerate(deliveries):
            try:
                requests[at] = delivery.read_request()
                parts.heartbeat.name(delivery, requests[at].job_id, requests[at].segment_id)
            except PoisonError as error:
                self._say_poison(delivery, error)
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

    def _say_poison(self, delivery: Delivery, error: PoisonError) -> None:
        ids = delivery.read_ids()
        match ids:
            case {"job_id": job_id, "segment_id": segment_id}:
                what = f"Segment {segment_id} of job {job_id}"
            case {"job_id": job_id}:
                what = f"A segment of job {job_id}"
            case {"segment_id": segment_id}:
                what = f"Segment {segment_id} of an unreadable job"
            case _:
                what = f"Message {delivery.message_id}"
        log.error("%s is poison: %s", what, error, extra=fields(message_id=delivery.message_id, **ids))

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
            ids = fields(message_id=delivery.message_id)
            log.exception("Message %s could not be handled and comes back", delivery.message_id, extra=ids)
            return Hide(BUG_SECONDS, type(error).__name__)
        return Done()

    def _supervise(self, parts: Parts) -> int:
        """Watch the threads until told to stop, or until one hangs."""
        while not self.stopping.wait(1.0):
            self._report()
            if stalled := parts.progress.stalled(parts.stall_seconds):
                log.critical("%s has made no progress for %.0f s: exiting to be restarted", *parts.progress.slowest())
                self._abandon(stalled, parts)
                self.stop()
                return EXIT_STALLED
        log.info("Stopping: no new messages, finishing what is in hand")
        return EXIT_OK

    def _abandon(self, stalled: Sequence[threading.Thread], parts: Parts) -> None:
        """What hung threads hold is left as by a crash: given back it would hang the next worker, uncharged."""
        deliveries, claims = parts.heartbeat.abandon(stalled)
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

    def _report(self, *, at_once: bool = False) -> None:
        if line := self._tally.report(at_once=at_once):
            log.info("%s", line)

    def _drain(self, parts: Parts, helpers_stop: Stop) -> None:
        """Finish or give back what is in hand, announce what ended, and keep the deadline whatever hangs."""
        deadline = time.monotonic() + parts.grace_seconds
        finishing_until = deadline - min(HAND_BACK_SECONDS, parts.grace_seconds / 3)
        self._say_polls(finishing_until)
        _wait_for(lambda: not self._polls and not parts.heartbeat.in_hand()[0], finishing_until)
        if cut := len(self._polls):
            log.warning("%d poll%s cut; what SQS answers it is hidden for a while", cut, " is" if cut == 1 else "s are")
        deliveries, claims = parts.heartbeat.in_hand()
        if deliveries:
            _within(deadline, lambda: self._hand_back(deliveries, claims, parts, deadline))
        _within(min(deadline, time.monotonic() + HAND_BACK_SECONDS), lambda: _catch_up(parts.service))
        _wait_for(parts.is_idle, deadline)
        helpers_stop.set()
        _within(min(deadline, time.monotonic() + CLOSE_SECONDS), parts.close)
        log.info(
            "Stopped; %s",
            f"{len(deliveries)} messages were handed back" if deliveries else "nothing is in hand",
        )

    def _say_polls(self, until: float) -> None:
        if polls := list(self._polls.values()):
            seconds = min(max(polls) + self.wait_time_seconds, until) - time.monotonic()
            log.info(
                "Waiting up to %d s for a poll to end; a second signal ends at once",
                max(1, math.ceil(seconds)),
            )

    def _hand_back(
        self, deliveries: Sequence[Delivery], claims: Sequence[Claimed], parts: Parts, deadline: float
    ) -> None:
        """Rows first: a run that wakes up later finds its token gone and writes nothing.

        A claim that was not given back has just been settled by its lane, whose announcement is waited for.
        """
        parts.heartbeat.let_go(deliveries)
        given_back: frozenset[str] = frozenset()
        try:
            if parts.service is not None and claims:
                given_back = parts.service.give_back(claims)
        except ProcessorError as error:
            log.warning("%d claims could not be given back and end with their lease: %s", len(claims), error)
        parts.acknowledger.act(deliveries, [Hide(0, "handed back")] * len(deliveries))
        settling = {claim.token for claim in claims if claim.task_id not in given_back}
        _wait_for(lambda: settling.isdisjoint(c.token for c in parts.heartbeat.in_hand()[1]), deadline)


class _MadeAtStart:
    """Stands where the library wants a client, so that building a consumer connects to nothing."""


_MADE_AT_START: Final = _MadeAtStart()


def _catch_up(service: Service | None) -> None:
    """What PostgreSQL could not take so far, it may take now; otherwise it ends with its lease."""
    try:
        if service is not None:
            service.catch_up()
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
