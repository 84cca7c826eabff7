"""What the lanes do with a batch: read it as segments for the service, or hand it to somebody's own handler.

Invariant: an outcome a message, whatever it holds and whatever is raised.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from app.core.outcomes import Dead, Done, Hide, Outcome
from app.core.segments import Claimed, SegmentRequest
from app.errors import PoisonError
from app.logs import fields
from app.sqs.delivery import Delivery
from app.threads.stopping import Stop
from app.worker.in_flight import InFlight

log = logging.getLogger(__name__)

BUG_SECONDS: Final = 30.0
"""How long a message is hidden that met a bug."""

type Handled = tuple[Sequence[Delivery], Sequence[Outcome]]
"""Messages and what becomes of each, to be acted on at once."""


class Service(Protocol):
    """What segments are handed to; see `app.tasks.TaskService`."""

    def process(self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0) -> list[Outcome]:
        """An outcome a request."""
        ...

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on; the ids of those tasks that were still ours."""
        ...

    def catch_up(self) -> None:
        """Write what could not be written yet. Raises `ProcessorError`."""
        ...


class Handler(Protocol):
    """Two there are: segments for the service, messages for a handler of somebody's own."""

    def handle(self, deliveries: Sequence[Delivery], stop: Stop) -> Iterator[Handled]:
        """Every delivery with its outcome, in as many parts as can be acted on one by one."""
        ...

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """Return segments that will not be worked on; the ids of those tasks that were still ours."""
        ...

    def catch_up(self) -> None:
        """Write what could not be written yet. Raises `ProcessorError`."""
        ...


class SegmentHandler:
    """A batch goes to the service together; what can't be read as a segment is poison."""

    def __init__(self, service: Service, in_flight: InFlight) -> None:
        self._service = service
        self._in_flight = in_flight
        self.give_back = service.give_back
        self.catch_up = service.catch_up

    def handle(self, deliveries: Sequence[Delivery], stop: Stop) -> Iterator[Handled]:
        """See `Handler`; all together."""
        outcomes: dict[int, Outcome] = {}
        requests: dict[int, SegmentRequest] = {}
        for at, delivery in enumerate(deliveries):
            try:
                requests[at] = delivery.read_request()
                self._in_flight.name(delivery, requests[at].job_id, requests[at].segment_id)
            except PoisonError as error:
                _say_poison(delivery, error)
                outcomes[at] = Dead(str(error), recorded=False)
        if requests:
            outcomes.update(zip(requests, self._process(list(requests.values()), deliveries), strict=True))
        yield deliveries, [outcomes[at] for at in range(len(deliveries))]

    def _process(self, requests: Sequence[SegmentRequest], deliveries: Sequence[Delivery]) -> list[Outcome]:
        try:
            return self._service.process(requests, time.monotonic() - deliveries[0].received_at)
        except Exception:
            log.exception("A batch of %d messages met a bug", len(requests))
            return [Hide(BUG_SECONDS, "a bug")] * len(requests)


class MessageHandler:
    """Each message by itself to a function that raises what it can't do, so that a crash repeats one at most."""

    def __init__(self, handle_message: Callable[[Any], None]) -> None:
        """`handle_message` takes an `aws_sqs_consumer.Message`."""
        from aws_sqs_consumer import Message  # with all of boto3, for those who have a handler of their own

        self._handle_message = handle_message
        self._message_type: Any = Message

    def handle(self, deliveries: Sequence[Delivery], stop: Stop) -> Iterator[Handled]:
        """See `Handler`; those not begun when it is time to stop go back."""
        for at, delivery in enumerate(deliveries):
            if stop.is_set():
                yield deliveries[at:], [Hide(0, "stopping")] * len(deliveries[at:])
                return
            yield [delivery], [self._handle(delivery)]

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        """There are no claims."""
        return frozenset()

    def catch_up(self) -> None:
        """Nothing is owed."""

    def _handle(self, delivery: Delivery) -> Outcome:
        message = self._message_type(
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
            self._handle_message(message)
        except Exception as error:
            ids = fields(message_id=delivery.message_id)
            log.exception("Message %s could not be handled and comes back", delivery.message_id, extra=ids)
            return Hide(BUG_SECONDS, type(error).__name__)
        return Done()


def _say_poison(delivery: Delivery, error: PoisonError) -> None:
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
