"""Which messages are accepted, and what is said of the others."""

import json
import uuid
from typing import Any

import pytest

from app.errors import PoisonError
from app.models import parse_segment_message, read_ids

JOB = str(uuid.uuid4())
GOOD = {"job_id": JOB, "manifestation_id": "M", "segment_id": "S", "start": 0, "end": 100}


def body(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def test_the_published_shape() -> None:
    message = parse_segment_message(body())
    assert (str(message.job_id), message.manifestation_id, message.segment_id) == (JOB, "M", "S")
    assert (message.start, message.end) == (0, 100)


def test_digits_are_accepted_unknown_fields_ignored_and_an_empty_span_allowed() -> None:
    message = parse_segment_message(body(start="7", end="7", priority="high"))
    assert (message.start, message.end) == (7, 7)


def test_512_bytes_are_an_id() -> None:
    assert parse_segment_message(body(segment_id="é" * 256)).segment_id == "é" * 256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"job_id": "42"}, "job_id"),
        ({"job_id": None}, "job_id"),
        ({"manifestation_id": ""}, "manifestation_id"),
        ({"manifestation_id": 7}, "manifestation_id"),
        ({"segment_id": "x" * 10_000}, "segment_id"),
        ({"segment_id": "é" * 257}, "segment_id"),
        ({"segment_id": "a\x00b"}, "segment_id"),
        ({"segment_id": "\ud800"}, "not JSON"),
        ({"segment_id": ["S"]}, "segment_id"),
        ({"start": -1}, "start"),
        ({"start": 1.5}, "start"),
        ({"start": True}, "start"),
        ({"start": " 7"}, "start"),
        ({"end": "1e3"}, "end"),
        ({"end": 2**63}, "end"),
        ({"start": 101}, "start must not be greater than end"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(PoisonError, match=field):
        parse_segment_message(body(**changes))


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_field_is_named(missing: str) -> None:
    with pytest.raises(PoisonError, match=missing):
        parse_segment_message(json.dumps({key: value for key, value in GOOD.items() if key != missing}))


@pytest.mark.parametrize("text", ["", "hello", "[]", "null", "7", '"x"', "{", "[" * 100_000, '{"start":' * 50_000])
def test_not_an_object_is_poison(text: str) -> None:
    with pytest.raises(PoisonError):
        parse_segment_message(text)


def test_every_wrong_field_is_named_and_no_value_is_shown() -> None:
    with pytest.raises(PoisonError) as caught:
        parse_segment_message(body(job_id="hunter2", start=-1))
    assert "job_id" in str(caught.value)
    assert "start" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (body(start=-1), {"job_id": JOB, "segment_id": "S"}),
        (body(job_id="hunter2", segment_id="S\n"), {"segment_id": "S\n"}),
        (body(job_id=7, segment_id=["S"]), {}),
        (body(segment_id="a\x00b"), {"job_id": JOB}),
        (body(segment_id="x" * 10_000), {"job_id": JOB}),
        (body(segment_id=""), {"job_id": JOB}),
        ('{"segment_id": "S", "segment_id": "T"}', {"segment_id": "T"}),
        *[(text, {}) for text in ("", "hello", "[]", "null", '"x"', '{"job_id": ', "[" * 100_000)],
    ],
)
def test_ids_are_read_from_whatever_came_as_far_as_they_are_there(text: str, ids: dict[str, str]) -> None:
    assert read_ids(text) == ids
