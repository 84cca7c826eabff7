"""The shapes that cross a wire: queue messages here, HTTP bodies beside them.

Invariant: what is accepted is exactly what docs/formats.md publishes; everything else is refused with a
reason that names the field and never repeats the body.
"""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.errors import PoisonError

MAX_ID_BYTES: Final = 512
MAX_OFFSET: Final = 2**63 - 1
"""The offsets are stored as PostgreSQL bigint."""


def _check_id(value: str) -> str:
    size = len(value.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise ValueError(f"must have 1 to {MAX_ID_BYTES} bytes, has {size}")
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    return value


def _read_digits(value: Any) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        return int(value)
    return value


Id = Annotated[str, AfterValidator(_check_id)]
Offset = Annotated[int, BeforeValidator(_read_digits), Field(ge=0, le=MAX_OFFSET)]
JobStatus = Literal["QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED"]


def _or_none(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        return None


class SegmentMessage(BaseModel):
    """One segment of work: the half-open character span [start, end) of `segment_id` in `manifestation_id`."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    job_id: Annotated[uuid.UUID, Field(strict=False)]
    """The job that counts the segment."""
    manifestation_id: Id
    """The text that the walk starts from; the job's own, or the message is poison."""
    segment_id: Id
    """The segment's row is found by it and `job_id`."""
    start: Offset
    """First character of the span."""
    end: Offset
    """The character after the last; not before `start`."""

    @model_validator(mode="after")
    def _check_order(self) -> "SegmentMessage":
        if self.start > self.end:
            raise ValueError("start must not be greater than end")
        return self


def parse_segment_message(body: str) -> SegmentMessage:
    """The message in `body` (JSON text).

    Raises `PoisonError` that names every wrong field; `read_ids` tells whose message it was.
    """
    try:
        return SegmentMessage.model_validate_json(body)
    except ValidationError as error:
        raise PoisonError(_describe(error)) from None


class _Ids(BaseModel):
    """The ids of a message whose other fields may be wrong; None for what is not one."""

    job_id: Annotated[uuid.UUID | None, WrapValidator(_or_none)] = None
    segment_id: Annotated[Id | None, WrapValidator(_or_none)] = None


def read_ids(body: str) -> dict[str, str]:
    """`job_id` and `segment_id`, those of them that can be read from a body of any kind; for log lines only."""
    try:
        ids = vars(_Ids.model_validate_json(body))
    except ValidationError:
        return {}
    return {name: str(value) for name, value in ids.items() if value is not None}


def _describe(error: ValidationError) -> str:
    """What is wrong, field by field; short, and without the values."""
    items = error.errors(include_url=False, include_input=False, include_context=False)
    if items[0]["type"] == "json_invalid":
        return f"the body is not JSON ({items[0]['msg'].removeprefix('Invalid JSON: ')})"
    reasons = []
    for item in items[:8]:
        field = ".".join(str(part) for part in item["loc"]) or "message"
        reasons.append(f"{field}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(reasons)


class Span(BaseModel):
    """Half-open, in characters."""

    start: int
    end: int


class RelatedSegment(BaseModel):
    """A segment of a related text."""

    segment_id: str
    span: Span


class RelatedText(BaseModel):
    """A related text with its related segments by (start, id); none when it has no segmentation."""

    manifestation_id: str
    segments: list[RelatedSegment]


class JobCreated(BaseModel):
    """The answer to POST /relation/{manifestation_id}."""

    job_id: uuid.UUID
    status: JobStatus
    message: str


class JobState(BaseModel):
    """The published columns of root_job, and `failed_segments`."""

    model_config = ConfigDict(from_attributes=True)

    job_id: uuid.UUID
    manifestation_id: str
    total_segments: int
    completed_segments: int
    failed_segments: int
    status: JobStatus
    created_at: datetime
    updated_at: datetime


class SegmentRelations(BaseModel):
    """One segment of the text with everything related to it."""

    segment_id: str
    mappings: list[RelatedText]


class AllRelations(BaseModel):
    """The answer to GET /relation/{manifestation_id}/all-relations."""

    manifestation_id: str
    segments: list[SegmentRelations]
