"""A `TaskService` over the stores in memory, with a graph, leases and faults that the test controls."""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pytest

from app.core.endings import Announcement, Completed, Ending, Failed, Settled
from app.core.outcomes import Outcome
from app.core.segments import ClaimAnswer, Claimed, SegmentRequest, Start
from app.errors import DataError, OutageError, PermanentError, StatementTimeoutError
from app.service.charging import Charger
from app.service.claiming import Claimer
from app.service.settling import Settler
from app.tasks import TaskService
from app.threads.budget import ByteBudget
from app.threads.gate import Gate
from app.threads.room import Room
from app.worker.counts import Counts
from tests.support.fakes import FakeDatabase
from tests.support.rows import SegmentRow

MAX_ATTEMPTS = 3
LEASE_SECONDS = 58.5


class FaultyDatabase(FakeDatabase):
    """Fails when it is told to: the next claims and settlings in order, None being none; or for a segment's id."""

    def __init__(self) -> None:
        super().__init__(max_attempts=MAX_ATTEMPTS)
        self.claim_errors: list[Exception | None] = []
        self.settle_errors: list[Exception | None] = []
        self.lost_claim_replies: list[Exception | None] = []
        self.lost_settle_replies: list[Exception | None] = []
        self.unclaimable: set[str] = set()
        self.locked: set[str] = set()
        """Ids of segments and jobs."""
        self.alone: list[bool] = []
        self.settled: list[list[str]] = []
        self.batches: list[list[str]] = []
        self.lease_seconds: list[float] = []

    def claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], lease_seconds: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        names = {request.segment_id for request in requests}
        if self.locked & names:
            raise StatementTimeoutError("the fake's row is locked")
        _raise_next(self.claim_errors)
        if self.unclaimable & {request.segment_id for request in requests}:
            raise DataError("the fake refuses an id")
        self.batches.append([request.segment_id for request in requests])
        self.lease_seconds.append(lease_seconds)
        self.alone.append(alone)
        answers = super().claim(requests, tokens, lease_seconds, alone=alone)
        _raise_next(self.lost_claim_replies)
        return answers

    def settle(self, endings: Sequence[Ending]) -> Settled:
        _raise_next(self.settle_errors)
        ending_jobs = {ending.claim.job_id for ending in endings if isinstance(ending, Completed | Failed)}
        if self.locked & ending_jobs or self.locked & {ending.claim.segment_id for ending in endings}:
            raise StatementTimeoutError("the fake's row is locked")
        settled = super().settle(endings)
        self.settled.append([ending.claim.segment_id for ending in endings])
        _raise_next(self.lost_settle_replies)
        return settled


class FakeGraph:
    """`Relate`: answers by where a span starts. What is to be raised is raised for the whole batch."""

    def __init__(self) -> None:
        self.answers: dict[int, str | PermanentError] = {}
        self.sizes: dict[int, int] = {}
        self.unencodable: set[int] = set()
        self.on_encode: Callable[[], object] = lambda: None
        self.errors: dict[int, BaseException] = {}
        self.calls: list[list[int]] = []
        self.starts: list[Start] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, starts: Sequence[Start]) -> "list[FakeRelated | PermanentError]":
        self.calls.append([start.start for start in starts])
        self.starts += starts
        self.meanwhile()
        for start in starts:
            if start.start in self.errors:
                raise self.errors[start.start]
        answers = {start.start: self.answers.get(start.start, f"[{start.start}]") for start in starts}
        return [
            answer
            if isinstance(answer, PermanentError)
            else FakeRelated(answer, self.sizes.get(at, len(answer)), at not in self.unencodable, self.on_encode)
            for at, answer in answers.items()
        ]


@dataclass(frozen=True)
class FakeRelated:
    """`Related`, as large as it says."""

    text: str
    size_bytes: int
    is_encodable: bool = True
    on_encode: Callable[[], object] = lambda: None

    def encode(self) -> str:
        if not self.is_encodable:
            raise KeyError("a bug")
        self.on_encode()
        return self.text


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
        self.gate = Gate()
        self.room = Room()
        self.budget = ByteBudget(1_000)
        self.counts = Counts()
        self.service = self.make_service(self.gate)

    def make_service(self, gate: Gate) -> TaskService:
        return TaskService(
            Claimer(self.database, lease_seconds=LEASE_SECONDS),
            self.graph,
            Charger(MAX_ATTEMPTS),
            Settler(self.database, self, gate, self.counts),
            self.leases,
            gate,
            self.room,
            self.budget,
            self.counts,
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
        tokens = [str(uuid.uuid4())]
        (answer,) = FakeDatabase.claim(self.database, [self.request(job_id, name)], tokens, lease_seconds, alone=True)
        assert isinstance(answer, Claimed)
        return answer

    def die_on(self, job_id: str, *names: str) -> None:
        """Another worker claims them together and is never heard of again."""
        requests = [self.request(job_id, name) for name in names]
        self.database.claim(requests, [str(uuid.uuid4()) for _ in names], 900.0, alone=False)
        self.database.travel(1_000)

    def room_is_wanted(self) -> bool:
        """Somebody waits to have the room alone."""
        return self.room.waiting_alone > 0

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
        """Whether it holds within the time."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()

    def row(self, job_id: str, name: str) -> SegmentRow:
        return self.database.segment(job_id, name)

    def states(self, job_id: str, *names: str) -> list[tuple[str, int]]:
        """Status and attempts of each."""
        return [(self.row(job_id, name).status, self.row(job_id, name).attempts) for name in names]


def outage(service: str = "PostgreSQL") -> OutageError:
    return OutageError(service, "refused")


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What the service has said, from `level` on."""
    return [record.getMessage() for record in caplog.records if record.name == "app.tasks" and record.levelno >= level]


def _raise_next(errors: list[Exception | None]) -> None:
    error = errors.pop(0) if errors else None
    if error:
        raise error
