"""Where a job stands: what its rows say at one moment, and so why it does or does not get on.

Invariant: each unfinished segment is counted under exactly one of held, retrying, unsent, abandoned and sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.core.overview import Speed


class Holder(NamedTuple):
    """A worker whose leases on segments of the job run on."""

    worker: str
    segments: int
    until: datetime
    """When the last of its leases ends, unless it is renewed."""


class LastError(NamedTuple):
    """The error that was written last, of a segment that is FAILED or waits for its next attempt."""

    segment_id: str
    status: str
    error: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A job's rows, counted. `held_by`: the workers with the most segments first, not necessarily all."""

    rows: Mapping[str, int]
    """By status, every status with its number."""
    held: int
    held_by: tuple[Holder, ...]
    retrying: int
    """RETRYING, before their time."""
    retry_first_at: datetime | None
    retry_last_at: datetime | None
    unsent: int
    """QUEUED without a message that was noted as sent."""
    abandoned: int
    """IN_PROGRESS, with a lease that ran out."""
    sent: int
    """Their message is on its way to a worker, or was lost."""
    resend_from: datetime | None
    """When a worker's sweep sends the first message again of those that nobody holds and no time is waited for."""
    last_error: LastError | None
    lately: Speed
    """Of the last seconds."""
