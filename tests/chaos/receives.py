"""What the workers received: written by `tests.chaos.worker`, read by the judgement and for the figures.

Invariant: nothing of `app` decides here; a message is read as it stands on the queue.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.sqs.delivery import Delivery
from tests.chaos.crew import Start


class Receive(NamedTuple):
    """One receive of one message; of poison the last two may be empty.

    `sent_at_ms`: as SQS says; of a fresh copy, none of which is redriven here, when its original was sent.
    """

    message_id: str
    times: int
    sent_at_ms: int
    job_id: str
    segment_id: str


def line_of(delivery: Delivery) -> str:
    """A receive as a line."""
    original = delivery.attributes.get("first_sent_at", {}).get("StringValue", "")
    sent_at_ms = int(original) if original.isdigit() else delivery.sent_at_ms
    return json.dumps([delivery.message_id, delivery.receive_count, sent_at_ms, *_names(delivery.body)]) + "\n"


def _names(body: str) -> tuple[str, str]:
    try:
        message = json.loads(body)
        return str(message["job_id"]), str(message["segment_id"])
    except (ValueError, LookupError, TypeError):
        return "", ""


def read_all(starts: Sequence[Start]) -> Iterator[Receive]:
    """Every receive of every worker; the last line of one that was killed may be cut short."""
    for start in starts:
        if start.receives.exists():
            for line in start.receives.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    yield Receive(*json.loads(line))


def summary(starts: Sequence[Start]) -> tuple[int, int, int]:
    """Receives in all; messages that were received more than once; the most receives of one message."""
    count: Counter[str] = Counter()
    most = 0
    for receive in read_all(starts):
        count[receive.message_id] += 1
        most = max(most, receive.times)
    return count.total(), sum(n > 1 for n in count.values()), most
