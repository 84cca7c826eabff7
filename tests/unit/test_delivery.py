"""What a delivery knows of its message: when it was first sent, and how it travels on."""

import json
from typing import Any

import pytest

from app.errors import PoisonError
from app.sqs.delivery import COPIED_AT, FIRST_SENT_AT, Delivery, read_delivery

JOB = "0b5f1f5a-0d3c-4c39-9d7b-0a3b5ef2a3a1"
SENT = 1_700_000_000_000


def delivery(sent_at_ms: int = SENT, attributes: dict[str, Any] | None = None, body: str = "{}") -> Delivery:
    return Delivery("id-1", "handle", body, 3, sent_at_ms, attributes or {}, received_at=0.0)


def stamps(first: object, copied: object) -> dict[str, Any]:
    return {
        FIRST_SENT_AT: {"DataType": "String", "StringValue": str(first)},
        COPIED_AT: {"DataType": "String", "StringValue": str(copied)},
    }


def test_a_message_counts_as_sent_when_sqs_says() -> None:
    assert delivery().first_sent_at_ms == SENT


def test_a_fresh_copy_carries_its_original_s_time() -> None:
    assert delivery(SENT + 90_000, stamps(SENT, SENT + 89_000)).first_sent_at_ms == SENT


def test_a_copy_of_a_copy_still_does() -> None:
    copy = delivery(SENT + 90_000, stamps(SENT, SENT + 89_000)).fresh_copy(7, SENT + 90_000)
    assert copy.delay_seconds == 7
    assert delivery(SENT + 91_000, dict(copy.attributes)).first_sent_at_ms == SENT


def test_a_redriven_copy_counts_as_sent_when_it_was_redriven() -> None:
    assert delivery(SENT + 600_000, stamps(SENT, SENT + 1_000)).first_sent_at_ms == SENT + 600_000


@pytest.mark.parametrize("rubbish", ["", "soon", "-5", "9" * 40, "१२"])
def test_rubbish_stamps_are_ignored(rubbish: str) -> None:
    assert delivery(SENT, stamps(rubbish, SENT)).first_sent_at_ms == SENT


def test_stamps_from_the_future_do_not_make_a_message_younger() -> None:
    assert delivery(SENT, stamps(SENT + 10**9, SENT + 10**9)).first_sent_at_ms == SENT


def test_a_dead_letter_says_why_and_forgets_the_stamps() -> None:
    own = {"tenant": {"DataType": "String", "StringValue": "t"}}
    letter = delivery(SENT, {**stamps(SENT, SENT), **own}).dead_letter("span: reversed\n\x00" + "x" * 5_000)
    assert set(letter.attributes) == {"reason", "receives", "tenant"}
    reason = letter.attributes["reason"]["StringValue"]
    assert reason.startswith("span: reversed??x")
    assert len(reason) <= 1_000


def test_a_full_set_of_attributes_makes_room_for_the_reason() -> None:
    full = {f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(10)}
    letter = delivery(SENT, full).dead_letter("why")
    assert len(letter.attributes) == 10
    assert letter.attributes["reason"]["StringValue"] == "why"


@pytest.mark.parametrize("limit", [256 * 1024, 1024 * 1024])
def test_the_largest_message_travels_on_with_what_it_had(limit: int) -> None:
    """A stamp or a reason more, and SQS would refuse it for ever."""
    own = {"a": {"DataType": "String", "StringValue": "x"}}
    largest = delivery(attributes=own, body="x" * (limit - 8))
    assert largest.dead_letter("why").attributes == own
    assert largest.fresh_copy(0, SENT).attributes == own
    smaller = delivery(attributes=own, body="x" * (limit - 1_000))
    assert "reason" in smaller.dead_letter("why").attributes


def test_reading_a_request() -> None:
    text = json.dumps(
        {
            "job_id": "0b5f1f5a-0d3c-4c39-9d7b-0a3b5ef2a3a1",
            "manifestation_id": "M",
            "segment_id": "S",
            "start": 1,
            "end": 2,
        }
    )
    request = delivery(body=text).read_request()
    assert (request.segment_id, request.start, request.end, request.sent_at_ms) == ("S", 1, 2, SENT)


def test_a_body_that_is_no_request_is_poison() -> None:
    with pytest.raises(PoisonError, match="job_id"):
        delivery().read_request()


def test_reading_what_boto3_gives() -> None:
    read = read_delivery(
        {
            "MessageId": "m",
            "ReceiptHandle": "h",
            "Body": "b",
            "Attributes": {"ApproximateReceiveCount": "4", "SentTimestamp": str(SENT)},
        },
        received_at=5.0,
    )
    assert (read.message_id, read.handle, read.body, read.receive_count, read.sent_at_ms) == ("m", "h", "b", 4, SENT)
