"""Any order of what workers, operators and sweeps may do, on real PostgreSQL, held against the stores in memory.

Each step is done to both; their answers and rows must be the same. Beside that, what may never happen is looked for
in PostgreSQL's rows alone (docs/formats.md). Times are multiples that never meet: a step travels by whole
hundreds of seconds, and no wait, lease or message's age ends near one.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.core.endings import Announcement, Completed, Ending, Failed, GivenBack, Postponed, Settled
from app.core.segments import Abandoned, ClaimAnswer, Claimed, HeldElsewhere, SegmentRequest, Unknown
from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.repairs import PostgresRepairs
from app.db.results import PostgresResults
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.fakes import FakeDatabase
from tests.support.rows import JobRow, OutboxRow, SegmentRow
from tests.support.tables import Tables, migrated_database

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "100"))
STEPS = 30
MAX_ATTEMPTS = 3
LEASE_SECONDS = 950.0
POSTPONED_SECONDS = 450.0
AGES_SECONDS = (-50, 50, 250, 5_050)
"""Of messages; the first is younger than anything that has happened."""
PAUSES_SECONDS = (0, 0, 100, 500, 1_000, 50_000)
NAMES = ("a", "b", "c")
KINDS = ("complete", "complete", "complete", "fail", "postpone", "back")


@pytest.fixture(scope="module")
def engine(stack: Stack, template_database: str) -> Iterator[Engine]:
    with migrated_database(stack, template_database, "state_machine") as engine:
        yield engine


def test_any_order_keeps_the_rules(engine: Engine) -> None:
    class LivesHere(Lives):
        def __init__(self) -> None:
            super().__init__(engine)

    run_state_machine_as_test(
        LivesHere,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


class Model(FakeDatabase):
    """The stores in memory, with the operator's hand."""

    def cancel(self, job_id: str) -> int | None:
        job = self._jobs[job_id]
        rows = [segment.status for segment in self._segments.values() if segment.job_id == job_id]
        is_complete = job.completed_segments >= max(job.total_segments, 1) and set(rows) == {"COMPLETED"}
        if job.status == "COMPLETED" or is_complete:
            return None
        ended = [s for s in self._segments.values() if s.job_id == job_id and s.status not in ("COMPLETED", "FAILED")]
        for segment in ended:
            segment.status, segment.error_message, segment.failed_at = "FAILED", "cancelled", self._clock()
            segment.claim_token = segment.lease_expires_at = segment.retry_at = None
        job.failed_segments += len(ended)
        job.status, job.cancelled_at = "FAILED", job.cancelled_at or self._clock()
        return len(ended)

    def retry(self, job_id: str) -> int:
        failed = [s for s in self._segments.values() if s.job_id == job_id and s.status == "FAILED"]
        for segment in failed:
            self.requeue(job_id, segment.segment_id)
            segment.last_sent_at = None
        self._jobs[job_id].cancelled_at = None
        return len(failed)


@dataclass(frozen=True)
class Pair[Value]:
    """The same thing in PostgreSQL and in the model."""

    real: Value
    model: Value


@dataclass(frozen=True)
class Rows:
    """Everything that stands in PostgreSQL; segments by (job id, segment id)."""

    jobs: dict[str, JobRow]
    segments: dict[tuple[str, str], SegmentRow]
    completions: dict[str, OutboxRow]

    @classmethod
    def read(cls, tables: Tables) -> "Rows":
        return cls(
            {row.job_id: row for row in tables.jobs()},
            {(row.job_id, row.segment_id): row for row in tables.segments()},
            {row.job_id: row for row in tables.completions()},
        )

    @property
    def completed_jobs(self) -> set[str]:
        return {job.job_id for job in self.jobs.values() if job.status == "COMPLETED"}

    @property
    def completed_segments(self) -> set[tuple[str, str]]:
        return {key for key, row in self.segments.items() if row.status == "COMPLETED"}

    def check(self) -> None:
        """What may be said of the rows whatever has happened."""
        for job in self.jobs.values():
            self.check_job(job, [row.status for row in self.segments.values() if row.job_id == job.job_id])
        for row in self.segments.values():
            assert (row.claim_token is None) == (row.lease_expires_at is None) == (row.status != "IN_PROGRESS")
            assert (row.retry_at is None) == (row.status != "RETRYING")
            assert (row.failed_at is None) == (row.status != "FAILED")
            assert (row.result_json is None) == (row.status != "COMPLETED")
        tokens = [row.claim_token for row in self.segments.values() if row.claim_token]
        assert len(tokens) == len(set(tokens))

    def check_job(self, job: JobRow, statuses: list[str]) -> None:
        """A job's total is never more than its rows here; with less, the job ends with its rows all the same."""
        completed, failed = statuses.count("COMPLETED"), statuses.count("FAILED")
        assert (job.completed_segments, job.failed_segments) == (completed, failed)
        if completed == len(statuses):
            assert job.status == "COMPLETED"
            assert job.job_id in self.completions
        elif completed + failed == len(statuses):
            assert job.status == "FAILED"
        else:
            assert job.status in ("QUEUED", "IN_PROGRESS")


class Lives(RuleBasedStateMachine):
    """Two workers, an operator and a sweep over a few jobs."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.tables = Tables(engine)
        self.tables.empty()
        self.workers = [PostgresClaims(engine, f"worker-{number}", MAX_ATTEMPTS) for number in range(2)]
        self.results = PostgresResults(engine)
        self.outbox = PostgresOutbox(engine)
        self.repairs = PostgresRepairs(engine)
        self.model = Model(max_attempts=MAX_ATTEMPTS)
        self.jobs: list[Pair[str]] = []
        self.segments: list[tuple[Pair[str], str]] = []
        self.claims: list[Pair[Claimed]] = []
        self.announcements: list[Pair[Announcement]] = []
        self.tokens: dict[str | None, str | None] = {}
        self.last_claim: tuple[list[tuple[Pair[str], str]], list[str], bool] = ([], [], False)
        self.completed_once: set[str] = set()
        self.results_made = 0
        self.tokens_made = 1
        self.rows = Rows({}, {}, {})
        self.requeued: tuple[str, str] | None = None
        self.nothing_may_change = False

    # What happens

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.add_job(count, missing=0)

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(count=st.integers(1, 3), missing=st.sampled_from((0, 0, 1, 3)))
    def add_job(self, count: int, missing: int) -> None:
        """A producer may have counted fewer segments than it inserts."""
        names, total = NAMES[:count], max(count - missing, 0)
        job = Pair(self.tables.add_job(*names, total=total), self.model.add_job(*names, total=total))
        self.jobs.append(job)
        self.segments += [(job, name) for name in names]

    @rule(
        data=st.data(),
        worker=st.integers(0, 1),
        age_seconds=st.sampled_from(AGES_SECONDS),
        after_seconds=st.sampled_from(PAUSES_SECONDS),
        alone=st.booleans(),
    )
    def claim_some(self, data: st.DataObject, worker: int, age_seconds: int, after_seconds: int, alone: bool) -> None:
        self.travel(after_seconds)
        known = st.sampled_from(self.segments)
        missing = st.tuples(st.sampled_from(self.jobs), st.just("missing"))
        wanted = data.draw(st.lists(known | known | missing, min_size=1, max_size=5, unique_by=key_of))
        self.claim(wanted, worker, age_seconds, alone=alone)

    @rule()
    def repeat_the_last_claim(self) -> None:
        """As after a reply that was lost: what was claimed is claimed, and charged once."""
        before = Rows.read(self.tables)
        wanted, tokens, alone = self.last_claim
        real = [request(job.real, name, self.tables.now() - 5_050) for job, name in wanted]
        model = [request(job.model, name, self.model.now() - 5_050) for job, name in wanted]
        held = {token: row.attempts for row in before.segments.values() if (token := row.claim_token) in tokens}
        answers = self.workers[0].claim(real, tokens, LEASE_SECONDS, alone=alone)
        expected = self.model.claim(model, tokens, LEASE_SECONDS, alone=alone)
        for answer, each in zip(answers, expected, strict=True):
            assert type(answer) is type(each)
            if isinstance(answer, Claimed):
                assert answer.attempts == held.get(answer.token, answer.attempts)

    @rule(kinds=st.lists(st.sampled_from(KINDS), min_size=9, max_size=9), after_seconds=st.sampled_from(PAUSES_SECONDS))
    def work_on_all(self, kinds: list[str], after_seconds: int) -> None:
        self.travel(after_seconds)
        before = len(self.claims)
        self.claim(self.segments, 0, age_seconds=250)
        self.settle(kinds, self.claims[before:])

    @rule(times=st.integers(1, MAX_ATTEMPTS), alone=st.booleans())
    def die_on_all(self, times: int, alone: bool) -> None:
        for _ in range(times):
            self.claim(self.segments, 1, age_seconds=5_050, alone=alone)
            self.travel(1_000)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        pairs = self.some_claims(data)
        current = self.current(pairs)
        kept = self.workers[0].renew([pair.real for pair in pairs], LEASE_SECONDS)
        expected = self.model.renew([pair.model for pair in pairs], LEASE_SECONDS)
        assert kept == expected
        assert kept == {claim.token for claim in current}
        self.nothing_may_change = not current

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=4, max_size=4))
    def settle_some(self, data: st.DataObject, kinds: list[str]) -> None:
        self.nothing_may_change = self.settle(kinds, self.some_claims(data)) == 0

    @rule(data=st.data(), what=st.sampled_from(["requeue", "requeue", "retry", "cancel"]))
    def operator_acts(self, data: st.DataObject, what: str) -> None:
        job, name = data.draw(st.sampled_from(self.segments))
        match what:
            case "requeue":
                self.requeued = (job.real, name)
                self.tables.requeue(job.real, name)
                self.model.requeue(job.model, name)
            case "retry":
                assert self.repairs.requeue_failed(job.real, 100) == self.model.retry(job.model)
            case "cancel":
                assert self.repairs.cancel(job.real) == self.model.cancel(job.model)

    @rule()
    def sweep_finds_no_job_to_mend(self) -> None:
        """The workers' own road never leaves one."""
        assert self.outbox.finish_forgotten() == []
        assert self.outbox.add_missing() == []
        assert self.repairs.find_drift(None) == []
        self.nothing_may_change = True

    @rule(after_seconds=st.sampled_from(PAUSES_SECONDS))
    def sweep_leases_completions(self, after_seconds: int) -> None:
        self.travel(after_seconds)
        leased = {each.job_id: each for each in self.outbox.lease_unsent(100)}
        expected = {each.job_id: each for each in self.model.lease_unsent(100)}
        assert {job.model for job in self.jobs if job.real in leased} == expected.keys()
        assert leased.keys() <= self.rows.completed_jobs
        for job in self.jobs:
            if job.real in leased:
                self.note_announcement(Pair(leased[job.real], expected[job.model]))

    @rule(after_seconds=st.sampled_from(PAUSES_SECONDS))
    def sweep_sends_lost_messages_again(self, after_seconds: int) -> None:
        self.travel(after_seconds)
        marked = self.outbox.mark_for_resending(100)
        expected = self.model.mark_for_resending(100)
        real_ids = {job.model: job.real for job in self.jobs}
        assert {(each.job_id, each.segment_id, each.start, each.end) for each in marked} == {
            (real_ids[each.job_id], each.segment_id, each.start, each.end) for each in expected
        }
        self.outbox.put_off([each.task_id for each in marked if each.start is None])
        self.model.put_off([each.task_id for each in expected if each.start is None])

    @precondition(lambda self: self.announcements)
    @rule(data=st.data())
    def relay_marks(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.announcements))
        self.outbox.mark_sent([pair.real])
        self.model.mark_sent([pair.model])

    # What must hold after every step

    @invariant()
    def the_rules_hold(self) -> None:
        rows = Rows.read(self.tables)
        if self.nothing_may_change:
            assert rows == self.rows
        self.completed_once |= rows.completed_jobs
        rows.check()
        assert rows.completions.keys() <= self.completed_once
        for key in rows.completed_segments & self.rows.completed_segments - {self.requeued}:
            assert rows.segments[key].result_json == self.rows.segments[key].result_json
        self.both_hold_the_same(rows)
        self.rows, self.requeued, self.nothing_may_change = rows, None, False

    def both_hold_the_same(self, rows: "Rows") -> None:
        for job in self.jobs:
            assert job_facts(rows.jobs[job.real]) == job_facts(self.model.job(job.model))
            completion, expected = rows.completions.get(job.real), self.model.completion(job.model)
            assert (completion is None) == (expected is None)
            if completion and expected:
                token = completion.lease_token
                known = replace(completion, lease_token=self.tokens.get(token, token))
                assert outbox_facts(known) == outbox_facts(expected)
        model_ids = {job.real: job.model for job in self.jobs}
        for (job_id, name), row in rows.segments.items():
            assert segment_facts(row) == segment_facts(self.model.segment(model_ids[job_id], name))

    # Helpers

    def travel(self, seconds: int) -> None:
        self.tables.travel(seconds)
        self.model.travel(seconds)

    def claim(
        self, wanted: Sequence[tuple[Pair[str], str]], worker: int, age_seconds: float, *, alone: bool = False
    ) -> None:
        real = [request(job.real, name, self.tables.now() - age_seconds) for job, name in wanted]
        model = [request(job.model, name, self.model.now() - age_seconds) for job, name in wanted]
        # In order: a settling leases a completion to its least token, and an example is replayed with the same ones.
        tokens = [str(uuid.UUID(int=self.tokens_made + at)) for at in range(len(wanted))]
        self.tokens_made += len(wanted)
        self.last_claim = (list(wanted), tokens, alone)
        answers = self.workers[worker].claim(real, tokens, LEASE_SECONDS, alone=alone)
        expected = self.model.claim(model, tokens, LEASE_SECONDS, alone=alone)
        for each in zip(answers, expected, strict=True):
            self.note_answer(Pair(*each))

    def settle(self, kinds: Sequence[str], pairs: Sequence[Pair[Claimed]]) -> int:
        """End them; how many were still valid."""
        current = self.current(pairs)
        endings = [self.ending(kind, pair) for kind, pair in zip(kinds, pairs, strict=False)]
        settled = self.results.settle([ending.real for ending in endings])
        expected = self.model.settle([ending.model for ending in endings])
        self.note_settled(Pair(settled, expected))
        assert settled.task_ids == {pair.real.task_id for pair in pairs if pair.model.task_id in expected.task_ids}
        assert settled.task_ids >= {claim.task_id for claim in current}
        return len(current)

    def some_claims(self, data: st.DataObject) -> list[Pair[Claimed]]:
        """Some of all claims ever made, the latest more often: most of the older are stale."""
        latest = st.sampled_from(self.claims[-4:])
        return data.draw(
            st.lists(
                latest | st.sampled_from(self.claims), min_size=1, max_size=4, unique_by=lambda pair: pair.real.token
            )
        )

    def current(self, pairs: Sequence[Pair[Claimed]]) -> list[Claimed]:
        """Those whose token stands in their row."""
        tokens = {row.claim_token for row in self.tables.segments()}
        return [pair.real for pair in pairs if pair.real.token in tokens]

    def ending(self, kind: str, pair: Pair[Claimed]) -> Pair[Ending]:
        self.results_made += 1
        made = [end(kind, claim, self.results_made) for claim in (pair.real, pair.model)]
        return Pair(*made)

    def note_answer(self, pair: Pair[ClaimAnswer]) -> None:
        match pair.real, pair.model:
            case Abandoned(real), Abandoned(model):
                self.note_claim(Pair(real, model))
            case Claimed() as real, Claimed() as model:
                self.note_claim(Pair(real, model))
            case HeldElsewhere(real), HeldElsewhere(model):
                assert abs(real - model) < 40
            case Unknown(real), Unknown(model):
                assert abs(real - model) < 40
            case real, model:
                assert real == model

    def note_claim(self, pair: Pair[Claimed]) -> None:
        assert pair.real.token == pair.model.token
        assert (pair.real.attempts, pair.real.start, pair.real.end) == (
            pair.model.attempts,
            pair.model.start,
            pair.model.end,
        )
        self.claims.append(pair)

    def note_settled(self, pair: Pair[Settled]) -> None:
        assert len(pair.real.task_ids) == len(pair.model.task_ids)
        models = {each.job_id: each for each in pair.model.announcements}
        ids = {job.real: job.model for job in self.jobs}
        assert {ids[each.job_id] for each in pair.real.announcements} == models.keys()
        for each in pair.real.announcements:
            assert each.token == models[ids[each.job_id]].token
            self.announcements.append(Pair(each, models[ids[each.job_id]]))

    def note_announcement(self, pair: Pair[Announcement]) -> None:
        assert pair.real.token not in self.tokens
        self.tokens[pair.real.token] = pair.model.token
        self.announcements.append(pair)


def key_of(segment: tuple[Pair[str], str]) -> tuple[str, str]:
    return segment[0].real, segment[1]


def request(job_id: str, name: str, sent_at: float) -> SegmentRequest:
    return SegmentRequest(job_id, "M", name, 10, 20, int(sent_at * 1_000))


def end(kind: str, claim: Claimed, number: int) -> Ending:
    match kind:
        case "complete":
            return Completed(claim, f"[{number}]")
        case "fail":
            return Failed(claim, f"error {number}")
        case "postpone":
            return Postponed(claim, f"slow {number}", POSTPONED_SECONDS)
    return GivenBack(claim)


def job_facts(job: JobRow) -> tuple[Any, ...]:
    """What of a row is comparable: times only by whether they are there."""
    return job.total_segments, job.completed_segments, job.failed_segments, job.status, job.cancelled_at is None


def segment_facts(row: SegmentRow) -> tuple[Any, ...]:
    moments = (row.lease_expires_at, row.retry_at, row.failed_at, row.last_sent_at)
    return (
        *(row.segment_id, row.status, row.attempts, row.send_count, row.span_start, row.span_end),
        *(row.result_json, row.error_message, row.claim_token, row.claimed_alone, row.settled_token),
        *(moment is None for moment in moments),
    )


def outbox_facts(row: OutboxRow) -> tuple[Any, ...]:
    return row.lease_token, row.leased_until is None, row.sent_at is None, row.send_count
