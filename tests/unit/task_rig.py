"""A `TaskService` over the stores in memory, with a graph, leases and faults that the test controls."""

import logging
from collections.abc import Callable, Collection, Sequence

import pytest

from app.errors import DataError, OutageError, PermanentError
from app.outage import Gate
from app.outcomes import Outcome
from app.ports import Announcement, ClaimAnswer, Claimed, Ending, SegmentRequest, Settled
from app.tasks import TaskService
from app.traversal import Start
from tests.fakes import FakeDatabase
from tests.rows import SegmentRow

MAX_ATTEMPTS = 3
LEASE_SECONDS = 58.5


class FaultyDatabase(FakeDatabase):
    """Fails when it is told to: the next claims and settlings in order, None being none; or for a segment's id."""

    def __init__(self) -> None:
        super().__init__(max_attempts=MAX_ATTEMPTS)
        self.claim_errors: list[Exception | None] = []
        self.settle_errors: list[Exception | None] = []
        self.unclaimable: set[str] = set()
        self.batches: list[list[str]] = []
        self.lease_seconds: list[float] = []

    def claim(self, requests: Sequence[SegmentRequest], lease_seconds: float) -> list[ClaimAnswer]:
        _raise_next(self.claim_errors)
        if self.unclaimable & {request.segment_id for request in requests}:
            raise DataError("the fake refuses an id")
        self.batches.append([request.segment_id for request in requests])
        self.lease_seconds.append(lease_seconds)
        return super().claim(requests, lease_seconds)

    def settle(self, endings: Sequence[Ending]) -> Settled:
        _raise_next(self.settle_errors)
        return super().settle(endings)


class FakeGraph:
    """`Relate`: answers by where a span starts. What is to be raised is raised for the whole batch."""

    def __init__(self) -> None:
        self.answers: dict[int, str | PermanentError] = {}
        self.errors: dict[int, Exception] = {}
        self.calls: list[list[int]] = []
        self.starts: list[Start] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, starts: Sequence[Start]) -> list[str | PermanentError]:
        self.calls.append([start.start for start in starts])
        self.starts += starts
        self.meanwhile()
        for start in starts:
            if start.start in self.errors:
                raise self.errors[start.start]
        return [self.answers.get(start.start, f"[{start.start}]") for start in starts]


class FakeLeases:
    """`Leases`: what is held now, and what was lost."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.lost: set[str] = set()
        self.most_held = 0

    def hold(self, claims: Collection[Claimed]) -> None:
        self.held |= {claim.token for claim in claims}
        self.most_held = max(self.most_held, len(self.held))

    def release(self, claims: Collection[Claimed]) -> None:
        self.held -= {claim.token for claim in claims}

    def is_lost(self, claim: Claimed) -> bool:
        return claim.segment_id in self.lost


class Rig:
    """Segments are named by where their spans start: "3" asks for [3, 4)."""

    def __init__(self) -> None:
        self.database = FaultyDatabase()
        self.graph = FakeGraph()
        self.leases = FakeLeases()
        self.announced: list[Announcement] = []
        self.gate = Gate({})
        self.service = self.make_service(self.gate)

    def make_service(self, gate: Gate) -> TaskService:
        return TaskService(
            self.database,
            self.database,
            self.graph,
            self.leases,
            self,
            gate,
            max_attempts=MAX_ATTEMPTS,
            lease_seconds=LEASE_SECONDS,
        )

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """`Announcer`."""
        self.announced += announcements

    def add_job(self, *names: str) -> str:
        return self.database.add_job(*names)

    def request(self, job_id: str, name: str, *, age_seconds: float = 0.0) -> SegmentRequest:
        sent_at_ms = int((self.database.now() - age_seconds) * 1_000)
        return SegmentRequest(job_id, "M", name, int(name), int(name) + 1, sent_at_ms)

    def process(self, job_id: str, *names: str) -> list[Outcome]:
        return self.service.process([self.request(job_id, name) for name in names])

    def take(self, job_id: str, name: str, lease_seconds: float = 1_000.0) -> Claimed:
        """Another worker claims it."""
        (answer,) = FakeDatabase.claim(self.database, [self.request(job_id, name)], lease_seconds)
        assert isinstance(answer, Claimed)
        return answer

    def row(self, job_id: str, name: str) -> SegmentRow:
        return self.database.segment(job_id, name)

    def states(self, job_id: str, *names: str) -> list[tuple[str, int]]:
        """Status and attempts of each."""
        return [(self.row(job_id, name).status, self.row(job_id, name).attempts) for name in names]


def outage(service: str = "PostgreSQL") -> OutageError:
    return OutageError(service, "refused")


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What `app.tasks` has said, from `level` on."""
    return [record.getMessage() for record in caplog.records if record.name == "app.tasks" and record.levelno >= level]


def _raise_next(errors: list[Exception | None]) -> None:
    error = errors.pop(0) if errors else None
    if error:
        raise error
