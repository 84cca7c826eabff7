"""The answers of the routes beyond the published ones, as OpenAPI describes them; those are in app/models.py.

Invariant: a field that is given once is never renamed; what may be missing is null, not left out.
"""

import uuid
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.core.jobs import Job, SegmentState
from app.models import AllRelations, JobState, JobStatus, Span

SegmentStatus = Literal["QUEUED", "IN_PROGRESS", "COMPLETED", "RETRYING", "FAILED"]
Count = Annotated[int, Field(ge=0)]

EXAMPLE_JOB: Final = "550e8400-e29b-41d4-a716-446655440000"
EXAMPLE_STATE: Final[JsonDict] = {
    "job_id": EXAMPLE_JOB,
    "manifestation_id": "root-bo",
    "total_segments": 4,
    "completed_segments": 2,
    "failed_segments": 1,
    "status": "IN_PROGRESS",
    "created_at": "2026-11-24T10:30:45Z",
    "updated_at": "2026-11-24T10:31:02Z",
    "cancelled_at": None,
}


class JobRow(JobState):
    """A job as it stands."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": EXAMPLE_STATE})

    cancelled_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> "JobRow":
        """The row of `job`."""
        return cls.model_validate(job)


class JobPage(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobRow]
    next_cursor: str | None = Field(description="For the parameter `cursor` of the next page; null on the last one.")


class SegmentsByStatus(BaseModel):
    """How many rows of the job have which status."""

    model_config = ConfigDict(from_attributes=True)

    queued: Count
    in_progress: Count
    completed: Count
    retrying: Count
    failed: Count
    unsent: Count = Field(description="Of the queued ones: those whose message was never sent.")


class Waiting(BaseModel):
    """What the unfinished segments wait for; each is counted under one of `held`, `waiting`, `quiet` and `due`."""

    model_config = ConfigDict(from_attributes=True)

    unfinished: Count
    held: Count = Field(description="Leased to a worker.")
    held_until: datetime | None
    waiting: Count = Field(description="For the time of their retry.")
    waiting_until: datetime | None
    quiet: Count = Field(description="Their last message may still be on its way.")
    quiet_until: datetime | None = Field(description="When a sweep sends the first of those again.")
    due: Count = Field(description="In nobody's hands: the next sweep sends their message again.")


class JobDetails(JobRow):
    """A job with its rows counted, and what the unfinished ones wait for."""

    segments: SegmentsByStatus
    outlook: Waiting


class SegmentRow(BaseModel):
    """A segment of a job as it stands, without its result."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "segment_id": "root-bo.segmentation.0",
                "span": {"start": 0, "end": 40},
                "status": "RETRYING",
                "attempts": 2,
                "error": "Neo4j ended a query after 30 s",
                "claimed_by": None,
                "lease_expires_at": None,
                "retry_at": "2026-11-24T10:32:00Z",
                "last_sent_at": "2026-11-24T10:30:45Z",
                "updated_at": "2026-11-24T10:31:02Z",
            }
        }
    )

    segment_id: str
    span: Span | None = Field(description="Null when neither its producer nor a worker has stored it.")
    status: SegmentStatus
    attempts: Count
    error: str | None
    claimed_by: str | None
    lease_expires_at: datetime | None
    retry_at: datetime | None
    last_sent_at: datetime | None
    updated_at: datetime

    @classmethod
    def of(cls, state: SegmentState) -> "SegmentRow":
        """The row of `state`."""
        span = None if state.start is None or state.end is None else Span(start=state.start, end=state.end)
        return cls(
            span=span, **{name: value for name, value in state._asdict().items() if name not in ("start", "end")}
        )


class SegmentPage(BaseModel):
    """Segments of a job by their id."""

    job_id: uuid.UUID
    segments: list[SegmentRow]
    next_cursor: str | None = Field(description="For the parameter `cursor` of the next page; null on the last one.")


class Retried(JobRow):
    """The job after its FAILED segments were sent back to QUEUED."""

    requeued_segments: Count


class Cancelled(JobRow):
    """The job after its unfinished segments were ended as FAILED."""

    ended_segments: Count


class Reconciled(BaseModel):
    """What was found, and what was done about it."""

    job_id: uuid.UUID
    is_complete: bool = Field(description="Nothing is left for an operator to do.")
    found_nothing: bool = Field(description="Everything was as it should be.")
    counters_mended: bool
    jobs_ended: Count
    completions_sent: Count
    segments_resent: Count
    segments_left: Count = Field(description="In nobody's hands and not sent again, so as not to flood the queue.")
    segments_without_span: Count
    remarks: list[str] = Field(description="In words what only an operator can mend.")
    outlook: Waiting


class PartialRelations(AllRelations):
    """What a job has found so far: its COMPLETED segments only, and how far it had come when the reading began."""

    job_id: uuid.UUID
    status: JobStatus
    total_segments: int
    completed_segments: Count
    failed_segments: Count


class Alive(BaseModel):
    """This process serves."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Each service that this one needs, by name: "ok", or why it is not."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "down",
                "dependencies": {"PostgreSQL": "ok", "Neo4j": "Neo4j does not answer: ...", "SQS": "ok"},
            }
        }
    )

    status: Literal["ok", "down"]
    dependencies: dict[str, str]
