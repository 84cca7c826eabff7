"""How segments end, and what a settling of endings has changed: values only."""

from dataclasses import dataclass

from app.core.segments import Claimed


@dataclass(frozen=True, slots=True)
class Completed:
    """Store `result_json` (JSON text) and count the segment."""

    claim: Claimed
    result_json: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Record the failure and count it."""

    claim: Claimed
    error: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """RETRYING until `seconds` from now; the attempt stays charged."""

    claim: Claimed
    error: str
    seconds: float


@dataclass(frozen=True, slots=True)
class GivenBack:
    """QUEUED again; the attempt is not charged."""

    claim: Claimed


type Ending = Completed | Failed | Postponed | GivenBack


@dataclass(frozen=True, slots=True)
class Announcement:
    """A completed job whose completion message is leased to us for sending.

    `traceparent`: of the trace that it belongs to (https://www.w3.org/TR/trace-context/); empty when none is known.
    """

    job_id: str
    manifestation_id: str
    token: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Surplus:
    """A job that ended with more rows than its producer counted."""

    job_id: str
    total_segments: int
    rows: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settling, or an earlier try of it, really changed: the tasks that were ours, and the jobs that ended."""

    task_ids: frozenset[str]
    announcements: tuple[Announcement, ...] = ()
    surpluses: tuple[Surplus, ...] = ()
