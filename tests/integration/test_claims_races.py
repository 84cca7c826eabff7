"""Workers that do the same at the same moment, many times: real threads, real connections, a barrier before each step.

``RACE_ROUNDS=10000 python -m pytest tests/integration/test_claims_races.py -k last_two`` runs the long form.
"""

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.core.endings import Completed, Ending, Failed, GivenBack, Postponed
from app.core.segments import (
    AlreadyCompleted,
    AlreadyFailed,
    ClaimAnswer,
    Claimed,
    HeldElsewhere,
    JobCancelled,
    SegmentRequest,
)
from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.repairs import PostgresRepairs
from app.db.results import PostgresResults
from devstack.stack import Stack
from tests.support.asking import ask
from tests.support.endstate import problems
from tests.support.engine import Engine
from tests.support.tables import Tables, migrated_database

ROUNDS = int(os.environ.get("RACE_ROUNDS", "300"))
SECONDS_A_ROUND = 0.25
"""Far more than a round takes, on the slowest machine."""
WORKERS = 6
LEASE_SECONDS = 1_000.0
HOUR_MS = 3_600_000

type Race = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def engine(stack: Stack, template_database: str) -> Iterator[Engine]:
    with migrated_database(stack, template_database, "claims_races", pool_size=WORKERS + 2) as engine:
        yield engine


@pytest.fixture
def tables(engine: Engine) -> Tables:
    tables = Tables(engine)
    tables.empty()
    return tables


@pytest.fixture
def race() -> Iterator[Race]:
    """``race(first, second, ...)``: each call in a thread, all let go at once; what they returned, in order."""
    with ThreadPoolExecutor(WORKERS) as threads:

        def run_together(*calls: Callable[[], Any]) -> list[Any]:
            barrier = threading.Barrier(len(calls))

            def go(call: Callable[[], Any]) -> Any:
                barrier.wait(60)
                return call()

            return [future.result() for future in [threads.submit(go, call) for call in calls]]

        yield run_together


@pytest.fixture
def _no_deadlock(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No transaction had to be repeated: the order of locks is the same everywhere."""
    caplog.set_level(logging.DEBUG, "app.db.postgres")
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "app.db.postgres"] == []


def requests(tables: Tables, job_id: str, names: Sequence[str], age_ms: int = HOUR_MS) -> list[SegmentRequest]:
    sent_at_ms = int(tables.now() * 1_000) - age_ms
    return [SegmentRequest(job_id, "M", name, 0, 1, sent_at_ms) for name in names]


def claims_in(answers: Sequence[ClaimAnswer]) -> list[Claimed]:
    return [answer for answer in answers if isinstance(answer, Claimed)]


@pytest.mark.timeout(max(300, ROUNDS * SECONDS_A_ROUND))
def test_the_last_two_segments_end_at_the_same_moment(
    engine: Engine, tables: Tables, race: Race, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever commits second sees the other's count; were rows counted in a snapshot, both could miss the end."""
    stores = PostgresClaims(engine, "worker", 5), PostgresResults(engine)
    ends: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(ROUNDS):
        job_id = tables.add_job("a", "b")
        first, second = claims_in(ask(stores[0], requests(tables, job_id, "ab"), LEASE_SECONDS))
        endings: list[Ending] = [
            Failed(first, "gone") if number % 3 == 2 else Completed(first, "[]"),
            Completed(second, "[]") if number % 3 == 0 else Failed(second, "gone"),
        ]
        settled = race(*(lambda ending=ending: stores[1].settle([ending]) for ending in endings))
        announcements = [each for one in settled for each in one.announcements]
        job, failed = tables.job(job_id), sum(isinstance(ending, Failed) for ending in endings)
        assert (job.completed_segments, job.failed_segments) == (2 - failed, failed)
        assert job.status == ("FAILED" if failed else "COMPLETED")
        assert len(announcements) == (0 if failed else 1)
        ends[job.status] += 1
    assert problems(engine) == []
    with capsys.disabled():
        print(f"\n{ROUNDS} jobs, the last two segments of each ended together: {dict(ends)}", end="")
        print(f" in {time.monotonic() - began:.1f} s")


@pytest.mark.usefixtures("_no_deadlock")
def test_each_segment_is_claimed_by_exactly_one(engine: Engine, tables: Tables, race: Race) -> None:
    names = [f"s{number}" for number in range(10)]
    for number in range(40):
        job_id = tables.add_job(*names)
        orders = [random.Random(number * WORKERS + at).sample(names, len(names)) for at in range(WORKERS)]
        batches = [requests(tables, job_id, order) for order in orders]
        answers = race(
            *(
                lambda at=at, batch=batch: ask(PostgresClaims(engine, f"worker-{at}", 5), batch, LEASE_SECONDS)
                for at, batch in enumerate(batches)
            )
        )
        won = Counter(claim.segment_id for one in answers for claim in claims_in(one))
        assert won == Counter(names)
        assert sum(isinstance(a, HeldElsewhere) for one in answers for a in one) == 10 * (WORKERS - 1)
        assert {row.attempts for row in tables.segments(job_id)} == {1}


@pytest.mark.parametrize(
    ("make_ending", "afterwards"),
    [
        (lambda claim: Completed(claim, "[1]"), AlreadyCompleted),
        (lambda claim: Failed(claim, "gone"), AlreadyFailed),
        (lambda claim: Postponed(claim, "slow", 500.0), HeldElsewhere),
        (GivenBack, Claimed),
    ],
    ids=["completed", "failed", "postponed", "given back"],
)
def test_a_run_that_ends_while_it_is_taken_over(
    engine: Engine,
    tables: Tables,
    race: Race,
    make_ending: Callable[[Claimed], Ending],
    afterwards: type,
) -> None:
    """Either it ended first, and the other sees that; or it was taken over first, and nothing of it is written."""
    claims, results = PostgresClaims(engine, "worker", 5), PostgresResults(engine)
    for _ in range(40):
        job_id = tables.add_job("a", "b")
        batch = requests(tables, job_id, "a")
        (claim,) = claims_in(ask(claims, batch, LEASE_SECONDS))
        tables.travel(LEASE_SECONDS + 1)
        settled, answers = race(
            lambda claim=claim: results.settle([make_ending(claim)]),
            lambda batch=batch: ask(claims, batch, LEASE_SECONDS, alone=True),
        )
        (answer,) = answers
        row = tables.segment(job_id, "a")
        if settled.task_ids:
            assert isinstance(answer, afterwards)
        else:
            assert isinstance(answer, Claimed)
            assert (row.status, row.claim_token, row.result_json) == ("IN_PROGRESS", answer.token, None)
    assert problems(engine) == []


def test_a_renewal_never_takes_a_lease_back(engine: Engine, tables: Tables, race: Race) -> None:
    claims = PostgresClaims(engine, "worker", 5)
    for _ in range(40):
        job_id = tables.add_job("a")
        batch = requests(tables, job_id, "a")
        (claim,) = claims_in(ask(claims, batch, LEASE_SECONDS))
        tables.travel(LEASE_SECONDS + 1)
        kept, answers = race(
            lambda claim=claim: claims.renew([claim], LEASE_SECONDS),
            lambda batch=batch: ask(claims, batch, LEASE_SECONDS, alone=True),
        )
        if taken := claims_in(answers):  # seen at once, or while it was being taken over and then by the next renewal
            assert tables.segment(job_id, "a").claim_token == taken[0].token
            assert claims.renew([claim], LEASE_SECONDS) == set()
        else:
            assert kept == {claim.token}


def test_a_redriven_segment_is_revived_once(engine: Engine, tables: Tables, race: Race) -> None:
    claims, results = PostgresClaims(engine, "worker", 5), PostgresResults(engine)
    for _ in range(40):
        job_id = tables.add_job("a", "b")
        results.settle([Failed(c, "x") for c in claims_in(ask(claims, requests(tables, job_id, "ab"), 9.0))])
        tables.travel(100)
        batches = [requests(tables, job_id, order, age_ms=0) for order in ("ab", "ba", "ab", "ba")]
        answers = race(*(lambda batch=batch: ask(claims, batch, LEASE_SECONDS) for batch in batches))
        won = [claim for one in answers for claim in claims_in(one)]
        assert (len(won), {claim.attempts for claim in won}) == (2, {1})
        assert (tables.job(job_id).failed_segments, tables.job(job_id).status) == (0, "IN_PROGRESS")
    assert problems(engine) == []


def test_a_job_is_cancelled_while_its_segments_end_and_are_claimed(engine: Engine, tables: Tables, race: Race) -> None:
    claims, results = PostgresClaims(engine, "worker", 5), PostgresResults(engine)
    for _ in range(40):
        job_id = tables.add_job("a", "b")
        (claim,) = claims_in(ask(claims, requests(tables, job_id, "a"), LEASE_SECONDS))
        batch = requests(tables, job_id, "b")
        settled, answers, _ = race(
            lambda claim=claim: results.settle([Completed(claim, "[1]")]),
            lambda batch=batch: ask(claims, batch, LEASE_SECONDS),
            lambda job_id=job_id: PostgresRepairs(engine).cancel(job_id),
        )
        late = results.settle([Completed(each, "[1]") for each in claims_in(answers)])
        assert late.task_ids == set()
        statuses = {row.segment_id: row.status for row in tables.segments(job_id)}
        assert statuses == {"a": "COMPLETED" if settled.task_ids else "FAILED", "b": "FAILED"}
        assert tables.job(job_id).status == "FAILED"
        assert ask(claims, batch, LEASE_SECONDS) == [JobCancelled()]
    assert problems(engine) == []


def test_a_completion_is_leased_to_exactly_one(engine: Engine, tables: Tables, race: Race) -> None:
    claims, outbox = PostgresClaims(engine, "worker", 5), PostgresOutbox(engine)
    for _ in range(10):
        tables.empty()
        jobs = [tables.add_job("a") for _ in range(12)]
        wanted = [request for job_id in jobs for request in requests(tables, job_id, "a")]
        PostgresResults(engine).settle([Completed(c, "[]") for c in claims_in(ask(claims, wanted, LEASE_SECONDS))])
        tables.travel(100)
        leased = race(*(lambda: outbox.lease_unsent(100) for _ in range(WORKERS)))
        assert Counter(each.job_id for one in leased for each in one) == Counter(jobs)


def test_a_lost_message_is_sent_again_by_exactly_one(engine: Engine, tables: Tables, race: Race) -> None:
    outbox = PostgresOutbox(engine)
    for _ in range(10):
        tables.empty()
        job_id = tables.add_job(*(f"{number}" for number in range(20)))
        for row in tables.segments(job_id):
            tables.set_segment(job_id, row.segment_id, span_start=0, span_end=1)
        tables.travel(1_000)
        marked = race(*(lambda: outbox.mark_for_resending(100) for _ in range(WORKERS)))
        assert sum(len(one) for one in marked) == 20
        assert {row.send_count for row in tables.segments(job_id)} == {1}


@pytest.mark.usefixtures("_no_deadlock")
def test_many_workers_over_shuffled_segments_of_several_jobs(engine: Engine, tables: Tables, race: Race) -> None:
    """Every batch mixes jobs and is in another order; every segment is offered to every worker."""
    jobs = [tables.add_job(*(f"s{number}" for number in range(60))) for _ in range(4)]
    offered = [request for job_id in jobs for request in requests(tables, job_id, [f"s{n}" for n in range(60)])]
    ended = race(*(lambda at=at: Worker(engine, at).work_through(offered) for at in range(WORKERS)))
    assert sum(ended) == len(offered)
    assert problems(engine) == []
    for job_id in jobs:
        job = tables.job(job_id)
        assert job.completed_segments + job.failed_segments == 60
        assert job.status in ("COMPLETED", "FAILED")


class Worker:
    """Claims what it is offered, in an order of its own, and ends what it has got in every way."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._claims = PostgresClaims(engine, f"worker-{number}", 1_000)
        self._results = PostgresResults(engine)
        self._random = random.Random(number)
        self._fails = number % 2 == 1

    def work_through(self, offered: Sequence[SegmentRequest]) -> int:
        """Work until all have ended; how many ended here."""
        left, ended = list(offered), 0
        while left:
            batch = self._random.sample(left, min(10, len(left)))
            answers = ask(self._claims, batch, LEASE_SECONDS)
            done = {
                (request.job_id, request.segment_id)
                for request, answer in zip(batch, answers, strict=True)
                if isinstance(answer, AlreadyCompleted | AlreadyFailed)
            }
            left = [request for request in left if (request.job_id, request.segment_id) not in done]
            mine = claims_in(answers)
            self._random.shuffle(mine)
            endings = [self._ending(claim) for claim in mine]
            assert self._claims.renew(mine, LEASE_SECONDS) == {claim.token for claim in mine}
            assert self._results.settle(endings).task_ids == {claim.task_id for claim in mine}
            ended += sum(isinstance(ending, Completed | Failed) for ending in endings)
        return ended

    def _ending(self, claim: Claimed) -> Ending:
        dice = self._random.random()
        if dice < 0.1:
            return GivenBack(claim)
        if dice < 0.2:
            return Postponed(claim, "slow", 0.0)
        return Failed(claim, "gone") if self._fails and dice < 0.4 else Completed(claim, "[]")
