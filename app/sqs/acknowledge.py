"""Acts on outcomes: deletes, hides, copies and dead-letters messages of the input queue.

Invariant: a message is deleted only after its outcome is safe: committed, or sent on as a fresh copy or a dead letter
that SQS has accepted. What can't be done now is done when the message comes back; nothing here raises.
"""

import logging
import math
from collections.abc import Sequence
from typing import Final, assert_never

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome
from app.errors import ConfigurationError, OutageError, ProcessorError
from app.logs import fields
from app.sqs.delivery import Delivery
from app.sqs.queue import MAX_DELAY_SECONDS, MAX_VISIBILITY_SECONDS, Outgoing, Queue

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
        """One outcome a delivery; one call for all copies, dead letters, hidings and deletions each."""
        deleting: list[Delivery] = []
        hiding: list[tuple[Delivery, float]] = []
        copying: list[tuple[Delivery, float]] = []
        burying: list[tuple[Delivery, Dead]] = []
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            match outcome:
                case Done():
                    deleting.append(delivery)
                case Hide(seconds) if self._is_last_receive(delivery):
                    copying.append((delivery, seconds))
                case Hide(seconds):
                    hiding.append((delivery, seconds))
                case Dead():
                    burying.append((delivery, outcome))
                case Leave():
                    pass
                case _:
                    assert_never(outcome)
        deleting += self._copy(copying)
        gone = self._bury(burying)
        deleting += gone
        hiding += [(delivery, self._kept_seconds) for delivery, _ in burying if delivery not in gone]
        self._hide(hiding)
        self._delete(deleting)

    def _is_last_receive(self, delivery: Delivery) -> bool:
        """One more, and the redrive policy takes good work for poison."""
        return self._max_receive_count is not None and delivery.receive_count >= self._max_receive_count

    def _copy(self, copying: Sequence[tuple[Delivery, float]]) -> list[Delivery]:
        """Send fresh copies; the originals that may go."""
        if not copying:
            return []
        now_ms = self._queue.now_ms()
        copies = [d.fresh_copy(_whole(seconds, MAX_DELAY_SECONDS), now_ms) for d, seconds in copying]
        refused = _send(self._queue, copies)
        return [delivery for at, (delivery, _) in enumerate(copying) if at not in refused]

    def _bury(self, burying: Sequence[tuple[Delivery, Dead]]) -> list[Delivery]:
        """Send dead letters or say what stands instead of one; the originals that may go."""
        if not burying:
            return []
        if self._dead_letters is not None:
            refused = _send(self._dead_letters, [delivery.dead_letter(dead.reason) for delivery, dead in burying])
            return [delivery for at, (delivery, _) in enumerate(burying) if at not in refused]
        if self._max_receive_count is not None:
            return []
        for delivery, dead in burying:
            log.error(
                "Message %s is deleted, its segment's row keeps the failure: %s"
                if dead.recorded
                else "Message %s can't be used and has nowhere to go, set SQS_DEAD_LETTER_QUEUE_URL: %s",
                delivery.message_id,
                dead.reason,
                extra=_fields(delivery),
            )
        return [delivery for delivery, dead in burying if dead.recorded]

    @property
    def _kept_seconds(self) -> float:
        """How long a dead message that could not go is hidden."""
        has_a_way = self._dead_letters is not None or self._max_receive_count is not None
        return REDRIVE_SECONDS if has_a_way else KEEP_SECONDS

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
            delivery = hiding[at][0]
            log.warning("Message %s was not hidden: %s", delivery.message_id, reason, extra=_fields(delivery))

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
                    log.warning(
                        "Message %s was not deleted, its duplicate will be: %s",
                        left[at].message_id,
                        reason,
                        extra=_fields(left[at]),
                    )
            left = [left[at] for at in refused]


def _send(queue: Queue, messages: Sequence[Outgoing]) -> dict[int, str]:
    """Position to reason of what the queue has not accepted. A call refused for one message is made for each alone."""
    if not messages:
        return {}
    try:
        refused = queue.send(messages)
    except (OutageError, ConfigurationError) as error:
        refused = dict.fromkeys(range(len(messages)), str(error))
    except ProcessorError as error:
        if len(messages) > 1:
            return {at: reason for at, one in enumerate(messages) for reason in _send(queue, [one]).values()}
        refused = {0: str(error)}
    for reason in refused.values():
        log.warning("A message was not sent on to %s and stays where it is: %s", queue.name, reason)
    return refused


def _fields(delivery: Delivery) -> dict[str, object] | None:
    return fields(message_id=delivery.message_id, **delivery.read_ids())


def _whole(seconds: float, most: int) -> int:
    return max(0, min(math.ceil(seconds), most))
