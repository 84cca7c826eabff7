"""The values of a segment's life, and the ports through which the service reaches the world.

Invariant: standard library and our own pure modules only, so that the service can be read, typed and tested
without a database, a queue or a graph. Times that decide anything are the database's; `*_us` are microseconds
since the epoch on its clock.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from app.errors import PermanentError
from app.traversal import Start

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


class Related(Protocol):
    """What is related to a segment, before it takes the memory of its JSON."""

    @property
    def size_bytes(self) -> int:
        """About what `encode` gives."""
        ...

    def encode(self) -> str:
        """The result JSON text, in ASCII."""
        ...


type Relate = Callable[[Sequence[Start]], Sequence[Related | PermanentError]]
"""The graph: what is related to each start, or why that can't be told.

Raises `OutageError` or `TransientError` for all of them together.
"""

type Ending = Completed | Failed | Postponed | GivenBack


@dataclass(frozen=True, slots=True)
class Announcement:
    """A completed job whose completion message is leased to us for sending."""

    job_id: str
    manifestation_id: str
    token: str


@dataclass(frozen=True, slots=True)
class UnsentSegment:
    """A segment that wants a message; its span is None when no producer or claim has stored it."""

    task_id: str
    job_id: str
    manifestation_id: str
    segment_id: str
    start: int | None
    end: int | None


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


class ClaimStore(Protocol):
    """Claims and leases. Each call is one transaction of its own; every method may raise `OutageError`."""

    def claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], lease_seconds: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """An answer a request, in order. The requests differ in (job, segment).

        `tokens`: a UUID a request, the caller's own; the same request with the same token is the same claim, however
        often it is sent. `alone`: the process works on nothing else, so suspects are claimed too. Raises
        `StatementTimeoutError` when one of the rows is locked for too long.
        """
        ...

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        """Extend the leases, but of rows that somebody has locked; the tokens that are still ours."""
        ...


class ResultStore(Protocol):
    """How segments end. One transaction a call; every method may raise `OutageError` or `TransientError`."""

    def settle(self, endings: Sequence[Ending]) -> Settled:
        """Write every ending whose token still stands, and count it; the same call again changes and answers the same.

        Raises `DataError` when a value is refused, `StatementTimeoutError` when a row is locked for too long.
        """
        ...


class Leases(Protocol):
    """What the heartbeat keeps alive."""

    def hold(self, claims: Collection[Claimed]) -> None:
        """Renew these from now on."""
        ...

    def release(self, claims: Collection[Claimed]) -> None:
        """They have ended."""
        ...

    def is_lost(self, claim: Claimed) -> bool:
        """Somebody else has claimed it since."""
        ...


class Announcer(Protocol):
    """Takes completed jobs whose message is to be sent; never blocks and never raises."""

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """Send these soon; if that fails the sweep will."""
        ...


RESEND_AFTER_SECONDS: Final = 900.0
"""An unfinished segment's message is sent again when it is untouched for so long; doubled with each repeat."""


class OutboxStore(Protocol):
    """The outbox and what the sweep looks for; with `job_id` in that job only.

    Each call is one transaction of its own and may raise `OutageError` or `TransientError`.
    """

    def lease_unsent(self, limit: int, job_id: str | None = None) -> list[Announcement]:
        """Completion messages that nobody is sending, leased to the caller."""
        ...

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        """They are on the queue."""
        ...

    def finish_forgotten(self, job_id: str | None = None) -> list[tuple[str, str]]:
        """Give jobs that have ended their status, and a completion message to send; (job id, status) of each."""
        ...

    def add_missing(self, job_id: str | None = None) -> list[str]:
        """Make the outbox row of COMPLETED jobs that have none; their ids."""
        ...

    def mark_for_resending(
        self, limit: int, job_id: str | None = None, after_seconds: float | None = None
    ) -> list[UnsentSegment]:
        """Unfinished segments that nobody will otherwise work on; those with a span are marked as sent now.

        Due by the waits that double or, with `after_seconds`, by the age of their last message.
        """
        ...

    def put_off(self, task_ids: Sequence[str]) -> None:
        """Nobody knows their span: a sweep looks at them again after a wait that doubles."""
        ...

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments whose producer gave none."""
        ...
