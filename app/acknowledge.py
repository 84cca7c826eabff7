"""Acts on outcomes: deletes, hides, copies and dead-letters messages of the input queue.

Invariant: a message is deleted only after its outcome is safe: committed, or sent on as a fresh copy or a dead letter
that SQS has accepted. What can't be done now is done when the message comes back; nothing here raises.
"""

import logging
import math
from collections.abc import Sequence
from typing import Final, assert_never

from app.delivery import Delivery
from app.errors import ProcessorError
from app.outcomes import Dead, Done, Hide, Leave, Outcome
from app.sqs import MAX_DELAY_SECONDS, MAX_VISIBILITY_SECONDS, Outgoing, Queue

log = logging.getLogger(__name__)

REDRIVE_SECONDS: Final = 30
"""Hidden so long, a dead message waits for the queue's redrive policy without spinning."""
KEEP_SECONDS: Final = 3_600
"""How often a dead message that has nowhere to go is looked at."""


class Acknowledger:
    """The last step of every message's road. `max_receive_count`: of the queue's redrive policy, None without."""

    def __init__(self, queue: Queue, dead_letters: Queue | None, max_receive_count: int | None) -> None:
        self._queue = queue
        self._dead_letters = dead_letters
        self._max_receive_count = max_receive_count

    def act(self, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        """One outcome a delivery: at most one call to send, one to hide and one to delete, for all of them."""
        deleting: list[Delivery] = []
        hiding: list[tuple[Delivery, float]] = []
        copying: list[tuple[Delivery, float]] = []
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            match outcome:
                case Done():
                    deleting.append(delivery)
                case Hide(seconds) if self._is_last_receive(delivery):
                    copying.append((delivery, seconds))
                case Hide(seconds):
                    hiding.append((delivery, seconds))
                case Dead():
                    self._bury(delivery, outcome, deleting, hiding)
                case Leave():
                    pass
                case _:
                    assert_never(outcome)
        deleting += self._copy(copying)
        self._hide(hiding)
        self._delete(deleting)

    def _is_last_receive(self, delivery: Delivery) -> bool:
        """One more, and the redrive policy takes good work for poison."""
        return self._max_receive_count is not None and delivery.receive_count >= self._max_receive_count

    def _copy(self, copying: Sequence[tuple[Delivery, float]]) -> list[Delivery]:
        """Send fresh copies; the originals that may go."""
        now_ms = self._queue.now_ms()
        copies = [d.fresh_copy(_whole(seconds, MAX_DELAY_SECONDS), now_ms) for d, seconds in copying]
        refused = _send(self._queue, copies)
        return [delivery for at, (delivery, _) in enumerate(copying) if at not in refused]

    def _bury(
        self,
        delivery: Delivery,
        outcome: Dead,
        deleting: list[Delivery],
        hiding: list[tuple[Delivery, float]],
    ) -> None:
        if self._dead_letters is not None:
            if _send(self._dead_letters, [delivery.dead_letter(outcome.reason)]):
                hiding.append((delivery, REDRIVE_SECONDS))
            else:
                deleting.append(delivery)
        elif self._max_receive_count is not None:
            hiding.append((delivery, REDRIVE_SECONDS))
        elif outcome.recorded:
            log.error(
                "Message %s is deleted, its segment's row keeps the failure: %s",
                delivery.message_id,
                outcome.reason,
            )
            deleting.append(delivery)
        else:
            log.error(
                "Message %s can't be used and has nowhere to go, set SQS_DEAD_LETTER_QUEUE_URL: %s",
                delivery.message_id,
                outcome.reason,
            )
            hiding.append((delivery, KEEP_SECONDS))

    def _hide(self, hiding: Sequence[tuple[Delivery, float]]) -> None:
        if not hiding:
            return
        handles = [(d.handle, _whole(seconds, MAX_VISIBILITY_SECONDS - 60)) for d, seconds in hiding]
        try:
            refused = self._queue.hide(handles)
        except ProcessorError as error:
            log.warning("%d messages were not hidden and come back when their visibility ends: %s", len(hiding), error)
            return
        for at, reason in refused.items():
            log.warning("Message %s was not hidden: %s", hiding[at][0].message_id, reason)

    def _delete(self, deleting: Sequence[Delivery]) -> None:
        if not deleting:
            return
        left = list(deleting)
        for last in (False, True):
            try:
                refused = self._queue.delete([delivery.handle for delivery in left])
            except ProcessorError as error:
                log.warning("%d messages were not deleted, their duplicates will be: %s", len(left), error)
                return
            if not refused:
                return
            if last:
                for at, reason in refused.items():
                    log.warning("Message %s was not deleted, its duplicate will be: %s", left[at].message_id, reason)
            left = [left[at] for at in refused]


def _send(queue: Queue, messages: Sequence[Outgoing]) -> dict[int, str]:
    """Position to reason of what the queue has not accepted."""
    if not messages:
        return {}
    try:
        refused = queue.send(messages)
    except ProcessorError as error:
        refused = dict.fromkeys(range(len(messages)), str(error))
    for reason in refused.values():
        log.warning("A message was not sent on to %s and stays where it is: %s", queue.name, reason)
    return refused


def _whole(seconds: float, most: int) -> int:
    return max(0, min(math.ceil(seconds), most))
