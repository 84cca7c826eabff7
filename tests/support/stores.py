"""The claim, result and outbox stores with the tables below them, as their suites use them."""

from dataclasses import dataclass

from app.core.endings import Completed, Failed, Settled
from app.core.ports import ClaimStore, OutboxStore, ResultStore
from app.core.segments import ClaimAnswer, Claimed, SegmentRequest
from tests.support.asking import ask
from tests.support.tables import TableAccess

MAX_ATTEMPTS = 5
LEASE_SECONDS = 1_000.0
"""So long that a slow machine changes nothing: time is travelled, not waited for."""
RESULT = '[{"segments": [], "manifestation_id": "Ö"}]'


@dataclass(frozen=True)
class Stores:
    """The ports under test, and the tables below them."""

    claims: ClaimStore
    results: ResultStore
    outbox: OutboxStore
    tables: TableAccess

    def request(self, job_id: str, segment_id: str = "a", *, age_seconds: float = 0.0) -> SegmentRequest:
        """A message of the job's own manifestation for [10, 20), sent `age_seconds` ago."""
        return SegmentRequest(job_id, "M", segment_id, 10, 20, int((self.tables.now() - age_seconds) * 1_000))

    def claim(
        self, job_id: str, segment_id: str = "a", *, age_seconds: float = 0.0, alone: bool = False
    ) -> ClaimAnswer:
        """The answer to one message."""
        (answer,) = ask(
            self.claims, [self.request(job_id, segment_id, age_seconds=age_seconds)], LEASE_SECONDS, alone=alone
        )
        return answer

    def take(self, job_id: str, segment_id: str = "a", *, alone: bool = False) -> Claimed:
        """Claim what can be claimed."""
        answer = self.claim(job_id, segment_id, alone=alone)
        assert isinstance(answer, Claimed)
        return answer

    def complete(self, job_id: str, *segment_ids: str) -> Settled:
        """Claim and complete these together."""
        return self.results.settle([Completed(self.take(job_id, segment_id), RESULT) for segment_id in segment_ids])

    def fail(self, job_id: str, segment_id: str = "a", error: str = "no such text") -> None:
        """Claim and fail it."""
        self.results.settle([Failed(self.take(job_id, segment_id), error)])

    def counters(self, job_id: str) -> tuple[int, int, str]:
        """Completed, failed, status."""
        job = self.tables.job(job_id)
        return job.completed_segments, job.failed_segments, job.status
