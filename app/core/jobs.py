"""The values and ports of the producer's side: how jobs are made, sent, looked at and repaired.

Invariant: standard library and our own pure modules only, so that `app.jobs` and `app.jobs.repairs` can be typed and
tested without a database, a queue or a graph.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from app.core.unsent import UnsentSegment
from app.errors import PermanentError

JOB_STATUSES: Final = ("QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED")
SEGMENT_STATUSES: Final = ("QUEUED", "IN_PROGRESS", "COMPLETED", "RETRYING", "FAILED")
ENDED: Final = ("COMPLETED", "FAILED")


class NotFoundError(PermanentError):
    """There is no such job or manifestation, or it has nothing to work on."""


class ConflictError(PermanentError):
    """The job is in a state in which this cannot be done."""


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


class SegmentSource(Protocol):
    """The graph. Every method may raise `OutageError`, `TransientError` or `PermanentError`."""

    def list_segments(self, manifestation_id: str) -> Sequence[tuple[str, int, int]] | None:
        """(id, start, end) of its segmentation or, without one, its pagination; None: there is no such text."""
        ...

    def find_spans(self, segment_ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """(start, end) of those segments that exist and have a span."""
        ...


class JobStore(Protocol):
    """Making and sending jobs. Each call is one transaction; every method may raise `OutageError`."""

    def create(self, job_id: str, manifestation_id: str, segments: Sequence[tuple[str, int, int]]) -> None:
        """Write the job with all its segments, or nothing. Doing it twice does it once."""
        ...

    def get(self, job_id: str) -> Job | None:
        """The job, if there is one."""
        ...

    def list_unsent(self, job_id: str, after_segment_id: str | None, limit: int) -> list[UnsentSegment]:
        """QUEUED segments for which no message was sent, by segment_id; none of a cancelled job."""
        ...

    def mark_sent(self, task_ids: Collection[str]) -> None:
        """Their messages are on the queue."""
        ...

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments that have none."""
        ...


class RepairStore(Protocol):
    """An operator's hand on jobs. Each call is one transaction; every method may raise `OutageError`."""

    def requeue_failed(self, job_id: str, limit: int) -> int:
        """Send up to `limit` FAILED segments back to QUEUED, unsent, and lift a cancellation; how many."""
        ...

    def cancel(self, job_id: str) -> int | None:
        """End what is unfinished; how many segments. None: there is no such job, or it is COMPLETED."""
        ...

    def find_drift(self, job_id: str | None) -> list[Drift]:
        """Jobs that contradict their rows; without `job_id` only the unfinished and the last day's."""
        ...

    def repair(self, job_id: str) -> bool:
        """Count the job's rows again under its lock; whether anything was different."""
        ...

    def find_miscounted(self, job_id: str | None) -> list[Miscount]:
        """Jobs with no rows, or others than `total_segments` says; without `job_id` only those that have not ended."""
        ...

    def look_ahead(self, job_id: str | None, after_seconds: float) -> Outlook:
        """What each unfinished segment waits for; a message counts as young for `after_seconds`, doubled."""
        ...
