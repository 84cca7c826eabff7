"""A segment's work: what a message asks for, what a claim answers, where a walk begins.

Invariant: values only. Times that decide anything are the database's; `*_us` are microseconds since the epoch on its
clock.
"""

from dataclasses import dataclass
from typing import Final

JUST_AFTER_SECONDS: Final = 0.5
"""A message that waits for a moment comes back this long after it."""


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What one message asks for: everything related to [start, end) of `segment_id`."""

    job_id: str
    manifestation_id: str
    segment_id: str
    start: int
    end: int
    sent_at_ms: int
    """When the message was first sent, by SQS's clock; decides whether it can revive a FAILED segment."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The segment is ours until `token` is replaced; the row's own span, not the message's."""

    task_id: str
    token: str
    job_id: str
    manifestation_id: str
    segment_id: str
    start: int
    end: int
    attempts: int
    fresh_since_us: int
    read_at_us: int
    job_segments: int = 1


@dataclass(frozen=True, slots=True)
class Start:
    """Where a walk begins. Times in microseconds since the epoch, on PostgreSQL's clock.

    `fresh_since_us`: no page may have been read before it. `read_at_us`: when the claim returned. `job_segments`: how
    many its job has, each of which walks over the same texts.
    """

    manifestation_id: str
    start: int
    end: int
    fresh_since_us: int
    read_at_us: int
    job_segments: int = 1


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Claimed for one purpose: to record that it has used up its attempts without ever reporting back."""

    claim: Claimed


@dataclass(frozen=True, slots=True)
class Suspect:
    """Not claimed: its last run left neither an ending nor a living lease, and may have killed its process.

    It is claimed alone, so that the next death tells whether it was this segment's doing.
    """


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """Leased to somebody else, or waiting for its retry, for `seconds` more."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AlreadyCompleted:
    """The result is stored."""


@dataclass(frozen=True, slots=True)
class AlreadyFailed:
    """FAILED after this message was sent."""

    error: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """An operator cancelled the job."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No such row or job, `age_seconds` after the message was sent: its producer may not have committed yet."""

    age_seconds: float


@dataclass(frozen=True, slots=True)
class ForeignManifestation:
    """The job belongs to another manifestation than the message says."""

    manifestation_id: str


type ClaimAnswer = (
    Claimed
    | Abandoned
    | Suspect
    | HeldElsewhere
    | AlreadyCompleted
    | AlreadyFailed
    | JobCancelled
    | Unknown
    | ForeignManifestation
)
