"""What stands in the tables, as tests look at it; the same for the real tables and for the fake ones.

Invariant: the fields are the columns, by their names. Times are seconds since the epoch on the store's clock.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class JobRow:
    """A row of root_job."""

    job_id: str
    manifestation_id: str
    total_segments: int
    fresh_since: float
    updated_at: float
    completed_segments: int = 0
    failed_segments: int = 0
    status: str = "QUEUED"
    cancelled_at: float | None = None


@dataclass(slots=True)
class SegmentRow:
    """A row of segment_task."""

    task_id: str
    job_id: str
    segment_id: str
    created_at: float
    span_start: int | None = None
    span_end: int | None = None
    status: str = "QUEUED"
    result_json: str | None = None
    error_message: str | None = None
    attempts: int = 0
    claim_token: str | None = None
    claimed_alone: bool = False
    settled_token: str | None = None
    lease_expires_at: float | None = None
    retry_at: float | None = None
    failed_at: float | None = None
    last_sent_at: float | None = None
    send_count: int = 0
    next_send_at: float | None = None


@dataclass(slots=True)
class OutboxRow:
    """A row of completion_outbox."""

    job_id: str
    manifestation_id: str
    lease_token: str | None = None
    leased_until: float | None = None
    sent_at: float | None = None
    send_count: int = 0
