"""Jobs as the producer's and the operator's side sees them, and the port to the graph that they are cut from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from app.core.unsent import SpanFinder
from app.errors import PermanentError

JOB_STATUSES: Final = ("QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED")
SEGMENT_STATUSES: Final = ("QUEUED", "IN_PROGRESS", "COMPLETED", "RETRYING", "FAILED")
ENDED: Final = ("COMPLETED", "FAILED")


class NotFoundError(PermanentError):
    """There is no such job or manifestation, or it has nothing to work on."""


class ConflictError(PermanentError):
    """The job is in a state in which this cannot be done."""


class KeyTakenError(PermanentError):
    """The idempotency key is kept with a job of another text."""


@dataclass(frozen=True, slots=True)
class Job:
    """A row of root_job."""

    job_id: str
    manifestation_id: str
    total_segments: int
    completed_segments: int
    failed_segments: int
    status: str
    created_at: datetime
    updated_at: datetime
    cancelled_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Nobody works on it any more, unless it is retried."""
        return self.status in ENDED

    @property
    def open_segments(self) -> int:
        """How many segments are neither COMPLETED nor FAILED."""
        return max(0, self.total_segments - self.completed_segments - self.failed_segments)


class SegmentRecord(NamedTuple):
    """A segment as it stands. `related` is the result JSON text; None until the segment is COMPLETED."""

    segment_id: str
    start: int | None
    end: int | None
    status: str
    related: str | None
    error: str | None


class SegmentState(NamedTuple):
    """A segment's row without its result: how it stands, and what it waits for."""

    segment_id: str
    start: int | None
    end: int | None
    status: str
    attempts: int
    error: str | None
    claimed_by: str | None
    lease_expires_at: datetime | None
    retry_at: datetime | None
    last_sent_at: datetime | None
    failed_at: datetime | None
    updated_at: datetime


class SegmentCounts(NamedTuple):
    """How many rows of a job have which status."""

    queued: int
    in_progress: int
    completed: int
    retrying: int
    failed: int
    unsent: int
    """Of the QUEUED ones: those whose message was never sent."""


class Drift(NamedTuple):
    """A job whose counters or status do not say what its rows say."""

    job_id: str
    status: str
    total_segments: int
    completed_segments: int
    failed_segments: int
    completed_rows: int
    failed_rows: int


class Miscount(NamedTuple):
    """A job that has no rows, or another number of them than its producer has written into `total_segments`."""

    job_id: str
    status: str
    total_segments: int
    rows: int

    @property
    def is_stuck(self) -> bool:
        """It can't end by itself, unless its producer has yet to write the rows."""
        return self.status not in ENDED and (self.rows == 0 or self.rows < self.total_segments)


class Outlook(NamedTuple):
    """What the unfinished segments wait for; each is counted under one of the four."""

    unfinished: int = 0
    held: int = 0
    """By a worker, whose lease runs on."""
    held_until: datetime | None = None
    waiting: int = 0
    """For the time of their retry."""
    waiting_until: datetime | None = None
    quiet: int = 0
    """Their last message is young enough to be still on its way."""
    quiet_until: datetime | None = None
    """When a sweep sends the first of those again."""
    due: int = 0
    """In nobody's hands."""


class SegmentSource(SpanFinder, Protocol):
    """The graph. Every method may raise `OutageError`, `TransientError` or `PermanentError`."""

    def list_segments(self, manifestation_id: str) -> Sequence[tuple[str, int, int]] | None:
        """(id, start, end) of its segmentation or, without one, its pagination; None: there is no such text."""
        ...
