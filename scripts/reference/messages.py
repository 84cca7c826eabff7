"""The messages on the queues and the result JSON, from the models that read and the functions that write them."""

import json
from typing import Any, Final

from app.core.endings import Announcement
from app.models import MAX_ID_BYTES, RelatedText, SegmentMessage
from app.outbox.messages import completion_message
from app.sqs.delivery import COPIED_AT, FIRST_SENT_AT
from scripts.reference.code import MissingMeaningError, attribute_texts, table

SOURCE: Final = "app/models.py"
JOB: Final = "550e8400-e29b-41d4-a716-446655440000"
IN: Final = {"job_id": JOB, "manifestation_id": "root-bo", "segment_id": "root-bo.3", "start": 0, "end": 100}
RESULT: Final = [
    {
        "manifestation_id": "translation-en",
        "segments": [{"segment_id": "translation-en.7", "span": {"start": 0, "end": 60}}],
    },
    {"manifestation_id": "index-zh", "segments": []},
]


def write_messages() -> str:
    """The sections, from their first heading on. Raises `MissingMeaningError`."""
    message = SegmentMessage.model_validate_json(json.dumps(IN))
    result = [RelatedText.model_validate(each).model_dump() for each in RESULT]
    return (
        "## Messages\n\n"
        "### In: one a segment, on SQS_QUEUE_URL\n\n"
        f"```json\n{json.dumps(message.model_dump(mode='json'))}\n```\n\n"
        f"{table(('field', 'type', 'meaning'), _fields())}\n"
        "All fields are required, others are ignored. What is of another shape is poison and becomes a dead letter"
        " whose `reason` names the field. A fresh copy of a message carries the attributes"
        f" `{FIRST_SENT_AT}` and `{COPIED_AT}`, in milliseconds on SQS's clock.\n\n"
        "### Out: one a COMPLETED job, on SQS_COMPLETED_QUEUE_URL\n\n"
        f"```json\n{completion_message(Announcement(JOB, 'root-bo', ''))}\n```\n\n"
        "It may come twice, never for a job that is not COMPLETED."
        " On a FIFO queue its deduplication id is the job's.\n\n"
        "### Dead letters, on SQS_DEAD_LETTER_QUEUE_URL\n\n"
        "The message as it came, with the attributes `reason` (text) and `receives` (how often it had been"
        " received).\n\n"
        "## Result JSON\n\n"
        "In `segment_task.result_json`, in the lines of `python -m app.jobs show`, and over HTTP:"
        " related texts in the order in which [the walk](formats.md#the-walk) came to them, segments by `(start, id)`,"
        " spans half-open in characters. A text without segmentation has no segments; `[]` stands for a text without"
        f" relations.\n\n```json\n[{',\n '.join(json.dumps(each) for each in result)}]\n```\n"
    )


def _fields() -> list[tuple[str, str, str]]:
    meanings = attribute_texts(SOURCE, SegmentMessage.__name__)
    rows = []
    for name, shape in SegmentMessage.model_json_schema()["properties"].items():
        if name not in meanings:
            raise MissingMeaningError(f"{SOURCE} says nothing about SegmentMessage.{name}: put a docstring below it")
        rows.append((f"`{name}`", _type(shape), meanings[name]))
    return rows


def _type(shape: dict[str, Any]) -> str:
    match shape:
        case {"format": "uuid"}:
            return "UUID"
        case {"type": "integer", "ge": low, "le": high}:
            return f"integer, {low} to {high}, or a string of digits"
        case {"type": "integer"}:
            return "integer"
        case _:
            return f"text of 1 to {MAX_ID_BYTES} bytes without NUL"
