"""The dead-letter queue as a person sees it: what is there and why, and the way back.

Invariant: a dead letter is deleted only after SQS has taken its copy for the input queue; what was only looked at is
visible again at once, or after `LOOK_SECONDS` if this process dies meanwhile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.sqs.delivery import REASON, RECEIVES, Delivery, read_delivery
from app.sqs.queue import Queue

LOOK_SECONDS: Final = 30
MOST_SHOWN: Final = 50
MOST_REDRIVEN: Final = 1_000
"""With one click: a request has an end."""
RECEIVE_MESSAGES: Final = 10
WAIT_SECONDS: Final = 1
"""Of a long poll, which asks all of SQS's servers; a short one may find nothing where there is something."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`receives`: of the message before it was given up. The ids are None where the body holds none."""

    message_id: str
    reason: str
    receives: str
    sent_at: datetime
    job_id: str | None
    segment_id: str | None


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many went back to the input queue, and how many SQS refused."""

    moved: int
    refused: int


class DeadLetters:
    """`queue` holds them, `home` is where they came from. Raises as `Queue`."""

    def __init__(self, queue: Queue, home: Queue) -> None:
        self._queue = queue
        self._home = home

    def look(self) -> list[DeadLetter]:
        """Some of them, `MOST_SHOWN` at most."""
        if not self._queue.facts().waiting:
            return []
        seen: list[Delivery] = []
        try:
            for batch in self._batches(MOST_SHOWN):
                seen += batch
        finally:
            self._release(seen)
        return [_read(delivery) for delivery in seen]

    def redrive(self, message_id: str | None) -> Redriven:
        """Send one back, or with None all of them, `MOST_REDRIVEN` at most."""
        passed: list[Delivery] = []
        moved = refused = 0
        try:
            for batch in self._batches(MOST_REDRIVEN):
                wanted = [each for each in batch if message_id in (None, each.message_id)]
                left = self._move(wanted)
                passed += left + [each for each in batch if each not in wanted]
                moved += len(wanted) - len(left)
                refused += len(left)
                if message_id is not None and wanted:
                    break
        finally:
            self._release(passed)
        return Redriven(moved, refused)

    def _batches(self, most: int) -> Iterator[list[Delivery]]:
        """Until there are no more, or so many."""
        received = 0
        while received < most:
            messages = self._queue.receive(min(RECEIVE_MESSAGES, most - received), WAIT_SECONDS, LOOK_SECONDS)
            if not messages:
                return
            received += len(messages)
            yield [read_delivery(message, 0.0) for message in messages]

    def _move(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Send copies home and delete what they are copies of; those that SQS did not take."""
        if not deliveries:
            return []
        refused = self._home.send([each.redriven() for each in deliveries])
        moved = [each for at, each in enumerate(deliveries) if at not in refused]
        if moved:
            self._queue.delete([each.handle for each in moved])
        return [each for at, each in enumerate(deliveries) if at in refused]

    def _release(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._queue.hide([(each.handle, 0) for each in deliveries])


def _read(delivery: Delivery) -> DeadLetter:
    ids = delivery.read_ids()

    return DeadLetter(
        message_id=delivery.message_id,
        reason=delivery.text_of(REASON) or "none given: the queue's redrive policy moved it, after too many receives",
        receives=delivery.text_of(RECEIVES) or "not told",
        sent_at=datetime.fromtimestamp(delivery.sent_at_ms / 1_000, UTC),
        job_id=ids.get("job_id"),
        segment_id=ids.get("segment_id"),
    )
