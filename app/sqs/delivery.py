"""One receive of one message, read from SQS's words into ours.

Invariant: whatever the message holds, a delivery can be made of it and given an outcome; only reading its body as a
request can fail, with `PoisonError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.core.segments import SegmentRequest
from app.models import parse_segment_message, read_ids
from app.sqs.queue import MESSAGE_LIMITS_BYTES, Outgoing, size_bytes, text_attribute

FIRST_SENT_AT: Final = "first_sent_at"
COPIED_AT: Final = "copied_at"
"""Message attributes of a fresh copy, in milliseconds on SQS's clock: when the original was sent, and the copy."""
REASON: Final = "reason"
RECEIVES: Final = "receives"
"""Message attributes of a dead letter: why it is one, and how often it had been received by then."""
TRACEPARENT: Final = "traceparent"
"""Message attribute of a traced message, in the form of https://www.w3.org/TR/trace-context/."""
COPY_SLACK_MS: Final = 60_000
"""A copy that SQS says was sent later than this after it was made has been redriven from a dead-letter queue."""
MAX_ATTRIBUTES: Final = 10


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in flight. `received_at`: `time.monotonic()` when its receive returned."""

    message_id: str
    handle: str
    body: str
    receive_count: int
    sent_at_ms: int
    attributes: Mapping[str, Any]
    received_at: float

    @property
    def first_sent_at_ms(self) -> int:
        """When the message was first sent: of a fresh copy its original's time, of a redriven one its redrive's."""
        original = _milliseconds(self.attributes.get(FIRST_SENT_AT))
        copied = _milliseconds(self.attributes.get(COPIED_AT))
        if original is None or copied is None or self.sent_at_ms > copied + COPY_SLACK_MS:
            return self.sent_at_ms
        return min(original, self.sent_at_ms)

    @property
    def traceparent(self) -> str:
        """The trace that it belongs to, as it says; empty when it says none."""
        attribute = self.attributes.get(TRACEPARENT)
        return str(attribute.get("StringValue", "")) if isinstance(attribute, Mapping) else ""

    def read_request(self) -> SegmentRequest:
        """What it asks for. Raises `PoisonError` that names the fields."""
        message = parse_segment_message(self.body)
        return SegmentRequest(
            job_id=str(message.job_id),
            manifestation_id=message.manifestation_id,
            segment_id=message.segment_id,
            start=message.start,
            end=message.end,
            sent_at_ms=self.first_sent_at_ms,
        )

    def read_ids(self) -> dict[str, str]:
        """`job_id` and `segment_id` for a log line, as far as the body holds them, whatever else is wrong with it."""
        return read_ids(self.body)

    def fresh_copy(self, delay_seconds: int, now_ms: int) -> Outgoing:
        """The same message again, with a receive count that starts anew; it knows when the first was sent.

        `now_ms`: on SQS's clock, which its sending is held against.
        """
        stamps = {
            FIRST_SENT_AT: text_attribute(str(self.first_sent_at_ms)),
            COPIED_AT: text_attribute(str(now_ms)),
        }
        attributes = self._fitting(_limited({**stamps, **self.attributes, **stamps}))
        return Outgoing(self.body, delay_seconds, attributes, self.message_id)

    def dead_letter(self, reason: str) -> Outgoing:
        """The same message for the dead-letter queue, its reason beside it; redriven it counts as newly sent."""
        kept = {name: value for name, value in self.attributes.items() if name not in (FIRST_SENT_AT, COPIED_AT)}
        note = {
            REASON: text_attribute(_attribute_text(reason)),
            RECEIVES: text_attribute(str(self.receive_count)),
        }
        return Outgoing(self.body, 0, self._fitting(_limited({**note, **kept, **note})), self.message_id)

    def redriven(self) -> Outgoing:
        """A dead letter as a message for the input queue again: newly sent, so that it revives its FAILED segment."""
        notes = (REASON, RECEIVES, FIRST_SENT_AT, COPIED_AT)
        return Outgoing(self.body, 0, {name: value for name, value in self.attributes.items() if name not in notes})

    def text_of(self, attribute: str) -> str | None:
        """A message attribute that holds text."""
        value = self.attributes.get(attribute)
        text = value.get("StringValue") if isinstance(value, Mapping) else None
        return text if isinstance(text, str) else None

    def _fitting(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """`attributes`, unless they make the message larger than SQS takes: then those that it had."""
        had = size_bytes(self.body, self.attributes)
        limit = min((limit for limit in MESSAGE_LIMITS_BYTES if limit >= had), default=had)
        return attributes if size_bytes(self.body, attributes) <= limit else self.attributes


def read_delivery(message: Mapping[str, Any], received_at: float) -> Delivery:
    """`message` as boto3 gives it."""
    attributes = message.get("Attributes", {})
    return Delivery(
        message_id=message["MessageId"],
        handle=message["ReceiptHandle"],
        body=message.get("Body", ""),
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
        sent_at_ms=int(attributes.get("SentTimestamp", 0)),
        attributes=message.get("MessageAttributes", {}),
        received_at=received_at,
    )


def _limited(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """As many as a message may have; ours stand first."""
    return dict(list(attributes.items())[:MAX_ATTRIBUTES])


def _milliseconds(attribute: Any) -> int | None:
    text = attribute.get("StringValue", "") if isinstance(attribute, Mapping) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else None


def _attribute_text(text: str) -> str:
    """SQS takes no control characters and nothing empty; long reasons are cut."""
    shown = "".join(char if char.isprintable() else "?" for char in text)[:1_000]
    return shown.encode("utf-8", "replace").decode() or "unknown"
