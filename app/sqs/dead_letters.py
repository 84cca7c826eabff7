"""The dead-letter queue, looked at by a person: SQS shows messages to whoever receives them, and to nobody else.

Invariant: whoever looks has the letters in hand for the time of the look only: what he does not delete he gives back.
A letter is deleted only after whatever is to become of it is safe.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.errors import PoisonError, ProcessorError
from app.sqs.delivery import REASON, RECEIVES, Delivery, read_delivery
from app.sqs.queue import MAX_BATCH_ENTRIES, Queue

WAIT_SECONDS: Final = 1
"""A receive that waits asks all of SQS's servers, one that does not may miss what is there."""
LOOKING_SECONDS: Final = 300
"""So long a letter stays hidden when whoever looks at it dies; long enough for a look at thousands of them."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up; the ids are None where its body does not hold them."""

    message_id: str
    job_id: str | None
    segment_id: str | None
    reason: str | None
    """None: the input queue's redrive policy has moved it, which tells none."""
    receives: int
    """How often it had been received when it was given up; of one without a reason, looks at it included."""
    since: datetime
    """When it was sent to the dead-letter queue; of one that a policy moved, when it was sent first."""
    delivery: Delivery

    @property
    def fault(self) -> str | None:
        """Why no worker could do anything with it; None when one could."""
        try:
            self.delivery.read_request()
        except PoisonError as error:
            return str(error)
        return None


class Hand:
    """The letters that are in hand; see `look`."""

    def __init__(self, queue: Queue, hidden_seconds: int) -> None:
        self._queue = queue
        self._hidden_seconds = hidden_seconds
        self._handles: dict[str, str] = {}

    def receive(self) -> list[DeadLetter]:
        """Up to ten that were not in hand before; none when there are no more to be had. Raises `ProcessorError`."""
        messages = self._queue.receive(MAX_BATCH_ENTRIES, WAIT_SECONDS, self._hidden_seconds)
        deliveries = [read_delivery(message, time.monotonic()) for message in messages]
        new = [delivery for delivery in deliveries if delivery.message_id not in self._handles]
        self._handles |= {delivery.message_id: delivery.handle for delivery in deliveries}
        return [_read(delivery) for delivery in new]

    def receive_all(self) -> Iterator[list[DeadLetter]]:
        """All that there are, up to ten at a time. Raises `ProcessorError`."""
        return iter(self.receive, [])

    def redrive(self, letters: Sequence[DeadLetter], home: Queue) -> dict[str, str]:
        """Send copies to the queue `home`, then delete what they are copies of; message id to reason of those left.

        Raises `ProcessorError`.
        """
        refused = home.send([letter.delivery.redriven() for letter in letters]) if letters else {}
        sent = [letter for at, letter in enumerate(letters) if at not in refused]
        kept = self.delete(sent) if sent else {}
        left = {letters[at].message_id: reason for at, reason in refused.items()}
        return left | {name: f"sent to {home.name}, but also left here: {reason}" for name, reason in kept.items()}

    def delete(self, letters: Sequence[DeadLetter]) -> dict[str, str]:
        """Delete them; message id to reason of those that SQS did not delete. Raises `ProcessorError`."""
        refused = self._queue.delete([self._handles[letter.message_id] for letter in letters])
        for at, letter in enumerate(letters):
            if at not in refused:
                del self._handles[letter.message_id]
        return {letters[at].message_id: reason for at, reason in refused.items()}

    def give_back(self) -> None:
        """Let others see what is still in hand; what can't be given back now comes back by itself."""
        with contextlib.suppress(ProcessorError):
            self._queue.hide([(handle, 0) for handle in self._handles.values()])
        self._handles.clear()


@contextmanager
def look(queue: Queue, hidden_seconds: int = LOOKING_SECONDS) -> Iterator[Hand]:
    """A hand that gives back what it has at the end, however that comes."""
    hand = Hand(queue, hidden_seconds)
    try:
        yield hand
    finally:
        hand.give_back()


def _read(delivery: Delivery) -> DeadLetter:
    ids = delivery.read_ids()
    receives = delivery.text_of(RECEIVES) or ""
    return DeadLetter(
        message_id=delivery.message_id,
        job_id=ids.get("job_id"),
        segment_id=ids.get("segment_id"),
        reason=delivery.text_of(REASON),
        receives=int(receives) if receives.isascii() and receives.isdigit() else delivery.receive_count,
        since=datetime.fromtimestamp(delivery.sent_at_ms / 1000, UTC),
        delivery=delivery,
    )
