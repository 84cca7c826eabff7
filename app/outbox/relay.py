"""Relays completion messages from the outbox to the second queue.

Invariant: a completion message is sent after its job's transaction has committed and marked after it was sent, so it
may be repeated but not lost; nothing in PostgreSQL is locked while SQS is being talked to.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from app.core.endings import Announcement
from app.core.ports import OutboxStore
from app.logs import fields
from app.outbox.messages import completion_message
from app.sqs.delivery import TRACEPARENT
from app.sqs.queue import Outgoing, Queue, text_attribute

log = logging.getLogger(__name__)


class Relay:
    """Sends leased completion messages and marks them."""

    def __init__(self, outbox: OutboxStore, completed: Queue) -> None:
        self._outbox = outbox
        self._completed = completed

    def send(self, announcements: Sequence[Announcement]) -> int:
        """Send and mark; how many went out. Those that did not are left to a sweep. Raises `ProcessorError`."""
        if not announcements:
            return 0
        refused = self._completed.send(
            [
                Outgoing(completion_message(each), attributes=_attributes(each), deduplication_id=each.job_id)
                for each in announcements
            ]
        )
        for at, reason in refused.items():
            log.warning("The completion message of job %s was refused: %s", announcements[at].job_id, reason)
        sent = [each for at, each in enumerate(announcements) if at not in refused]
        self._outbox.mark_sent(sent)
        for each in sent:
            log.info(
                "Job %s of manifestation %s is completed, its message is sent",
                each.job_id,
                each.manifestation_id,
                extra=fields(job_id=each.job_id),
            )
        return len(sent)


def _attributes(announcement: Announcement) -> Mapping[str, Any]:
    return {TRACEPARENT: text_attribute(announcement.traceparent)} if announcement.traceparent else {}
