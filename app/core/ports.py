"""The ports through which the service reaches the world.

Invariant: standard library and our own values only, so that the service can be read, typed and tested without a
database, a queue or a graph.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from app.core.endings import Announcement, Ending, Settled
from app.core.segments import ClaimAnswer, Claimed, SegmentRequest, Start
from app.core.unsent import UnsentSegment
from app.errors import PermanentError


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
    """The claims in flight, whose leases the heartbeat renews."""

    def hold(self, claims: Collection[Claimed]) -> None:
        """Renew these leases from now on."""
        ...

    def release(self, claims: Collection[Claimed]) -> None:
        """These claims have ended: renew their leases no more."""
        ...

    def is_lost(self, claim: Claimed) -> bool:
        """Whether another worker has claimed the segment since."""
        ...


class Announcer(Protocol):
    """Takes completed jobs whose message is to be sent; never blocks and never raises."""

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """Send these soon; if that fails the sweep will."""
        ...


class OutboxStore(Protocol):
    """The outbox and what the sweep looks for; with `job_id` in that job only.

    Each call is one transaction of its own and may raise `OutageError` or `TransientError`.
    """

    def lease_unsent(self, limit: int, job_id: str | None = None) -> list[Announcement]:
        """Completion messages that nobody is sending, leased to the caller."""
        ...

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        """Note that these messages are on the queue."""
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
