"""The stores in memory, for tests of what stands above them; and a clock that moves when it is told to.

Invariant: they answer as PostgreSQL does. tests/contract/test_stores.py holds both to the same suite.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, assert_never

from app.core.endings import Announcement, Completed, Ending, Failed, GivenBack, Postponed, Settled, Surplus
from app.core.segments import (
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
    ClaimAnswer,
    Claimed,
    ForeignManifestation,
    HeldElsewhere,
    JobCancelled,
    SegmentRequest,
    Suspect,
    Unknown,
)
from app.core.unsent import RESEND_AFTER_SECONDS, UnsentSegment
from app.errors import DataError
from tests.support.rows import JobRow, OutboxRow, SegmentRow

OUTBOX_LEASE_SECONDS = 30
UNFINISHED = ("QUEUED", "IN_PROGRESS", "RETRYING")
STATUSES: dict[type, str] = {Completed: "COMPLETED", Failed: "FAILED", Postponed: "RETRYING", GivenBack: "QUEUED"}


class FakeClock:
    """Seconds since the epoch; stands still."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeDatabase:
    """`ClaimStore`, `ResultStore` and `OutboxStore` over three dictionaries, and a hand to change what is in them."""

    def __init__(self, clock: FakeClock | None = None, max_attempts: int = 5) -> None:
        self._clock = clock or FakeClock()
        self._max_attempts = max_attempts
        self._jobs: dict[str, JobRow] = {}
        self._segments: dict[tuple[str, str], SegmentRow] = {}
        self._outbox: dict[str, OutboxRow] = {}

    # The store's side

    def claim(
        self, requests: Sequence[SegmentRequest], tokens: Sequence[str], lease_seconds: float, *, alone: bool = False
    ) -> list[ClaimAnswer]:
        """An answer a request, in order."""
        return [
            self._claim(request, token, lease_seconds, alone) for request, token in zip(requests, tokens, strict=True)
        ]

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        """Extend the leases; the tokens that are still ours."""
        held = [segment for claim in claims if (segment := self._held_by(claim))]
        for segment in held:
            segment.lease_expires_at = self._clock() + lease_seconds
        return {segment.claim_token for segment in held if segment.claim_token}

    def settle(self, endings: Sequence[Ending]) -> Settled:
        """Write and count every ending whose token still stands."""
        for ending in endings:
            if isinstance(ending, Completed):
                _check_jsonb(ending.result_json)
        ours = [(segment, ending) for ending in endings if (segment := self._held_by(ending.claim))]
        for segment, ending in ours:
            self._end(segment, ending)
        counted = {segment.job_id for segment, _ in ours if segment.status in ("COMPLETED", "FAILED")}
        surpluses = []
        for job in [self._jobs[job_id] for job_id in sorted(counted)]:
            if self._derive(job):
                rows = job.completed_segments + job.failed_segments
                surpluses += [Surplus(job.job_id, job.total_segments, rows)] if rows > job.total_segments else []
                if job.status == "COMPLETED":
                    claims = [ending.claim for ending in endings if self._is_settled_by(ending)]
                    self._announce(job, min(claim.token for claim in claims if claim.job_id == job.job_id))
        settled = [ending.claim for ending in endings if self._is_settled_by(ending)]
        tokens = [claim.token for claim in settled]
        leased = [row for row in self._outbox.values() if row.lease_token in tokens]
        return Settled(
            frozenset(claim.task_id for claim in settled),
            tuple(Announcement(row.job_id, row.manifestation_id, str(row.lease_token)) for row in leased),
            tuple(surpluses),
        )

    def lease_unsent(self, limit: int, job_id: str | None = None) -> list[Announcement]:
        """Completion messages that nobody is sending, leased to the caller."""
        free = [row for row in self._outbox.values() if row.sent_at is None and self._is_past(row.leased_until)]
        complete = [row for row in free if self._jobs[row.job_id].status == "COMPLETED"]
        mine = [row for row in complete if job_id in (None, row.job_id)]
        return [
            self._announce(self._jobs[row.job_id], str(uuid.uuid4()))
            for row in sorted(mine, key=lambda row: row.job_id)[:limit]
        ]

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        """They are on the queue."""
        for announcement in announcements:
            row = self._outbox[announcement.job_id]
            if row.lease_token == announcement.token:
                sent = replace(row, sent_at=self._clock(), lease_token=None, leased_until=None)
                self._outbox[row.job_id] = replace(sent, send_count=row.send_count + 1)

    def finish_forgotten(self, job_id: str | None = None) -> list[tuple[str, str]]:
        """Give jobs that have ended their status, and a completion message to send; (job id, status) of each."""
        ended = [
            job
            for job in self._jobs.values()
            if job.status in ("QUEUED", "IN_PROGRESS")
            and job.completed_segments + job.failed_segments >= max(job.total_segments, 1)
            and not any(row.status in UNFINISHED for row in self._segments.values() if row.job_id == job.job_id)
            and job_id in (None, job.job_id)
        ]
        for job in ended:
            job.status = "FAILED" if job.failed_segments else "COMPLETED"
            if job.status == "COMPLETED":
                self._outbox[job.job_id] = OutboxRow(job.job_id, job.manifestation_id)
        return [(job.job_id, job.status) for job in ended]

    def add_missing(self, job_id: str | None = None) -> list[str]:
        """Make the outbox row of COMPLETED jobs that have none; their ids."""
        missing = [
            job
            for job in self._jobs.values()
            if job.status == "COMPLETED"
            and job.completed_segments >= max(job.total_segments, 1)
            and job.job_id not in self._outbox
            and (job_id == job.job_id or (job_id is None and job.updated_at > self._clock() - 86_400))
        ]
        self._outbox.update((job.job_id, OutboxRow(job.job_id, job.manifestation_id)) for job in missing)
        return [job.job_id for job in missing]

    def mark_for_resending(
        self, limit: int, job_id: str | None = None, after_seconds: float | None = None
    ) -> list[UnsentSegment]:
        """Unfinished segments that nobody will otherwise work on; those with a span are marked as sent now."""
        due = [
            segment
            for segment in self._segments.values()
            if segment.status in UNFINISHED
            and _due_at(segment, after_seconds) <= self._clock()
            and self._is_past(segment.lease_expires_at)
            and self._is_past(segment.retry_at)
            and self._jobs[segment.job_id].cancelled_at is None
            and job_id in (None, segment.job_id)
        ]
        found = _in_turn(due, _next_send_at if after_seconds is None else _sent_at)[:limit]
        for segment in found:
            if segment.span_start is not None:
                segment.last_sent_at = self._clock()
                self._double(segment)
        return [self._unsent(segment) for segment in found]

    def put_off(self, task_ids: Sequence[str]) -> None:
        """Nobody knows their span: a sweep looks at them again after a wait that doubles."""
        for segment in self._segments.values():
            if segment.task_id in task_ids and segment.span_start is None:
                self._double(segment)

    def store_spans(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Keep (task id, start, end) of segments whose producer gave none."""
        by_id = {segment.task_id: segment for segment in self._segments.values()}
        for task_id, start, end in spans:
            if by_id[task_id].span_start is None:
                by_id[task_id].span_start, by_id[task_id].span_end = start, end

    # The test's side; see tests/support/tables.py

    def add_job(self, *segment_ids: str, manifestation_id: str = "M", total: int | None = None) -> str:
        """A QUEUED job with these segments, as a foreign producer inserts it; its id."""
        job_id, now = str(uuid.uuid4()), self._clock()
        count = len(segment_ids) if total is None else total
        self._jobs[job_id] = JobRow(job_id, manifestation_id, count, fresh_since=now, updated_at=now)
        for segment_id in segment_ids:
            self._segments[job_id, segment_id] = SegmentRow(str(uuid.uuid4()), job_id, segment_id, now)
        return job_id

    def now(self) -> float:
        """The store's clock."""
        return self._clock()

    def travel(self, seconds: float) -> None:
        """Let everything be so much older."""
        self._clock.now += seconds

    def job(self, job_id: str) -> JobRow:
        """The job as it stands."""
        return replace(self._jobs[job_id])

    def segment(self, job_id: str, segment_id: str) -> SegmentRow:
        """The segment as it stands."""
        return replace(self._segments[job_id, segment_id])

    def completion(self, job_id: str) -> OutboxRow | None:
        """The job's outbox row as it stands."""
        row = self._outbox.get(job_id)
        return replace(row) if row else None

    def set_job(self, job_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        self._jobs[job_id] = replace(self._jobs[job_id], **columns)

    def set_segment(self, job_id: str, segment_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        self._segments[job_id, segment_id] = replace(self._segments[job_id, segment_id], **columns)

    def requeue(self, job_id: str, segment_id: str) -> None:
        """An operator's plain UPDATE ... SET status = 'QUEUED'."""
        segment, job = self._segments[job_id, segment_id], self._jobs[job_id]
        before, segment.status = segment.status, "QUEUED"
        segment.claim_token = segment.lease_expires_at = segment.retry_at = None
        segment.claimed_alone = False
        if before in ("COMPLETED", "FAILED"):
            segment.attempts = segment.send_count = 0
            segment.next_send_at = _sent_at(segment) + RESEND_AFTER_SECONDS
            segment.result_json = segment.error_message = segment.failed_at = None
            job.completed_segments -= before == "COMPLETED"
            job.failed_segments -= before == "FAILED"
            job.status, job.fresh_since, job.updated_at = "IN_PROGRESS", self._clock(), self._clock()
            job.cancelled_at = None

    # Below: how a segment changes

    def _claim(self, request: SegmentRequest, token: str, lease_seconds: float, alone: bool) -> ClaimAnswer:
        segment = self._segments.get((request.job_id, request.segment_id))
        if segment is None:
            return Unknown(self._clock() - request.sent_at_ms / 1000)
        job = self._jobs[segment.job_id]
        answer = self._refusal(segment, job, request, token)
        if answer is not None:
            return answer
        if segment.claim_token == token:
            return self._claimed(segment, job)
        if segment.status == "FAILED":
            self.requeue(segment.job_id, segment.segment_id)
        is_suspect = segment.status == "IN_PROGRESS" and segment.claim_token is not None
        is_abandoned = (
            segment.status == "IN_PROGRESS" and segment.claimed_alone and segment.attempts >= self._max_attempts
        )
        if is_suspect and not is_abandoned and not alone:
            return Suspect()
        if not is_abandoned:
            segment.attempts += not is_suspect or segment.claimed_alone
            segment.claimed_alone = alone
        segment.status, segment.claim_token, segment.retry_at = "IN_PROGRESS", token, None
        segment.lease_expires_at = self._clock() + lease_seconds
        if segment.span_start is None:
            segment.span_start, segment.span_end = request.start, request.end
        if is_abandoned:
            return Abandoned(self._claimed(segment, job))
        job.status = "IN_PROGRESS" if job.status == "QUEUED" else job.status
        return self._claimed(segment, job)

    def _refusal(self, segment: SegmentRow, job: JobRow, request: SegmentRequest, token: str) -> ClaimAnswer | None:
        if job.manifestation_id != request.manifestation_id:
            return ForeignManifestation(job.manifestation_id)
        if segment.status == "COMPLETED":
            return AlreadyCompleted()
        if job.cancelled_at is not None:
            return JobCancelled()
        if segment.status == "FAILED" and request.sent_at_ms / 1000 <= (segment.failed_at or 0.0):
            return AlreadyFailed(segment.error_message or "no reason was recorded")
        if segment.status == "IN_PROGRESS" and segment.claim_token == token:
            return None
        until = segment.retry_at if segment.status == "RETRYING" else segment.lease_expires_at
        if segment.status in ("RETRYING", "IN_PROGRESS") and until is not None and until > self._clock():
            return HeldElsewhere(until - self._clock() + 0.5)
        return None

    def _claimed(self, segment: SegmentRow, job: JobRow) -> Claimed:
        assert segment.claim_token is not None
        assert segment.span_start is not None
        assert segment.span_end is not None
        return Claimed(
            task_id=segment.task_id,
            token=segment.claim_token,
            job_id=segment.job_id,
            manifestation_id=job.manifestation_id,
            segment_id=segment.segment_id,
            start=segment.span_start,
            end=segment.span_end,
            attempts=segment.attempts,
            fresh_since_us=int(min(job.fresh_since, self._clock()) * 1_000_000),
            read_at_us=int(self._clock() * 1_000_000),
            job_segments=job.total_segments,
        )

    def _held_by(self, claim: Claimed) -> SegmentRow | None:
        segment = self._segments[claim.job_id, claim.segment_id]
        return segment if segment.claim_token == claim.token and segment.status == "IN_PROGRESS" else None

    def _is_settled_by(self, ending: Ending) -> bool:
        segment = self._segments[ending.claim.job_id, ending.claim.segment_id]
        return segment.settled_token == ending.claim.token and segment.status == STATUSES[type(ending)]

    def _end(self, segment: SegmentRow, ending: Ending) -> None:
        segment.settled_token = ending.claim.token
        segment.claim_token = segment.lease_expires_at = segment.error_message = None
        match ending:
            case Completed():
                segment.status, segment.result_json = "COMPLETED", ending.result_json
                self._jobs[segment.job_id].completed_segments += 1
            case Failed():
                segment.status, segment.error_message, segment.failed_at = "FAILED", ending.error, self._clock()
                self._jobs[segment.job_id].failed_segments += 1
            case Postponed():
                segment.status, segment.error_message = "RETRYING", ending.error
                segment.retry_at = self._clock() + ending.seconds
            case GivenBack():
                segment.status, segment.attempts = "QUEUED", max(segment.attempts - 1, 0)
                segment.claimed_alone = False
            case _:
                assert_never(ending)

    def _derive(self, job: JobRow) -> bool:
        """Give the job the status that its counters and rows say; whether it has ended just now."""
        rows = [segment for segment in self._segments.values() if segment.job_id == job.job_id]
        has_ended = job.completed_segments + job.failed_segments >= job.total_segments and not any(
            segment.status in UNFINISHED for segment in rows
        )
        job.updated_at = self._clock()
        if job.status == "COMPLETED":
            return False
        job.status = "IN_PROGRESS" if not has_ended else "FAILED" if job.failed_segments else "COMPLETED"
        return has_ended

    def _announce(self, job: JobRow, token: str) -> Announcement:
        known = self._outbox.get(job.job_id) or OutboxRow(job.job_id, job.manifestation_id)
        leased = replace(known, lease_token=token, leased_until=self._clock() + OUTBOX_LEASE_SECONDS, sent_at=None)
        self._outbox[job.job_id] = leased
        return Announcement(job.job_id, job.manifestation_id, token)

    def _unsent(self, segment: SegmentRow) -> UnsentSegment:
        manifestation_id = self._jobs[segment.job_id].manifestation_id
        span = segment.span_start, segment.span_end
        return UnsentSegment(segment.task_id, segment.job_id, manifestation_id, segment.segment_id, *span)

    def _double(self, segment: SegmentRow) -> None:
        segment.send_count += 1
        segment.next_send_at = self._clock() + _wait_seconds(RESEND_AFTER_SECONDS, segment)

    def _is_past(self, moment: float | None) -> bool:
        return moment is None or moment < self._clock()


def _due_at(segment: SegmentRow, after_seconds: float | None) -> float:
    if after_seconds is None:
        return _next_send_at(segment)
    return _sent_at(segment) + _wait_seconds(after_seconds, segment)


def _wait_seconds(first: float, segment: SegmentRow) -> float:
    return first * 2.0 ** min(segment.send_count, 10)


def _in_turn(segments: Sequence[SegmentRow], since: Callable[[SegmentRow], float]) -> list[SegmentRow]:
    """The first of each job, then the second of each, and so on."""
    taken: Counter[str] = Counter()
    ranked = []
    for segment in sorted(segments, key=since):
        ranked.append((taken[segment.job_id], since(segment), segment))
        taken[segment.job_id] += 1
    return [each[2] for each in sorted(ranked, key=lambda each: each[:2])]


def _next_send_at(segment: SegmentRow) -> float:
    """As in the table, where the column's default has set it."""
    return segment.created_at + RESEND_AFTER_SECONDS if segment.next_send_at is None else segment.next_send_at


def _sent_at(segment: SegmentRow) -> float:
    return segment.created_at if segment.last_sent_at is None else segment.last_sent_at


def _check_jsonb(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise DataError("the fake refuses what is no JSON") from error
    if "\\u0000" in text:
        raise DataError("the fake refuses NUL as PostgreSQL does")
