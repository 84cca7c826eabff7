"""Claims and leases, on the fake and on PostgreSQL: every row of the table in docs/formats.md, "Claim"."""

import random
import uuid
from dataclasses import replace

import pytest

from app.core.endings import Completed, Failed, GivenBack, Postponed
from app.core.segments import (
    Abandoned,
    AlreadyCompleted,
    AlreadyFailed,
    Claimed,
    ForeignManifestation,
    HeldElsewhere,
    JobCancelled,
    Suspect,
    Unknown,
)
from tests.support.asking import ask
from tests.support.stores import LEASE_SECONDS, MAX_ATTEMPTS, RESULT, Stores

# Claim: what can be claimed


def test_queued_is_claimed(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    claim = stores.take(job_id)
    row = stores.tables.segment(job_id, "a")
    assert claim == Claimed(
        task_id=row.task_id,
        token=row.claim_token or "none",
        job_id=job_id,
        manifestation_id="M",
        segment_id="a",
        start=10,
        end=20,
        attempts=1,
        fresh_since_us=claim.fresh_since_us,
        read_at_us=claim.read_at_us,
        job_segments=2,
    )
    assert (row.status, row.attempts, row.retry_at) == ("IN_PROGRESS", 1, None)
    assert row.lease_expires_at is not None
    assert stores.counters(job_id) == (0, 0, "IN_PROGRESS")
    assert stores.tables.segment(job_id, "b").status == "QUEUED"


def test_pages_read_from_the_job_s_making_on_are_fresh_enough(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.travel(100)
    claim = stores.take(job_id)
    assert claim.fresh_since_us == pytest.approx(stores.tables.job(job_id).fresh_since * 1_000_000, abs=1)
    assert claim.read_at_us - claim.fresh_since_us >= 100 * 1_000_000


def test_a_job_from_the_future_is_fresh_since_now(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_job(job_id, fresh_since=stores.tables.now() + 9_999)
    claim = stores.take(job_id)
    assert claim.fresh_since_us <= claim.read_at_us


def test_the_first_claim_stores_the_span_of_its_message_and_the_row_s_wins_later(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.results.settle([GivenBack(stores.take(job_id))])
    row = stores.tables.segment(job_id, "a")
    assert (row.span_start, row.span_end) == (10, 20)
    (again,) = ask(stores.claims, [replace(stores.request(job_id), start=7, end=8)], LEASE_SECONDS)
    assert isinstance(again, Claimed)
    assert (again.start, again.end) == (10, 20)


def test_the_producer_s_span_wins_over_the_message_s(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_segment(job_id, "a", span_start=0, span_end=5)
    claim = stores.take(job_id)
    assert (claim.start, claim.end) == (0, 5)
    row = stores.tables.segment(job_id, "a")
    assert (row.span_start, row.span_end) == (0, 5)


def test_a_lease_that_ran_out_without_an_ending_makes_a_suspect_and_the_row_is_not_touched(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    stores.tables.travel(LEASE_SECONDS + 1)
    before = stores.tables.segment(job_id, "a")
    assert stores.claim(job_id) == Suspect()
    assert stores.tables.segment(job_id, "a") == before
    assert stores.results.settle([Completed(claim, RESULT)]).task_ids == {claim.task_id}


def test_a_suspect_is_claimed_alone_and_a_death_beside_others_is_not_charged(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    first = stores.take(job_id)
    for _ in range(2 * MAX_ATTEMPTS):
        stores.tables.travel(LEASE_SECONDS + 1)
        again = stores.take(job_id, alone=True)
        assert (again.token == first.token, again.attempts) == (False, 1)
        assert stores.tables.segment(job_id, "a").claimed_alone
        stores.tables.set_segment(job_id, "a", claimed_alone=False)


def test_a_death_that_it_was_alone_in_is_charged(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.take(job_id)
    stores.tables.travel(LEASE_SECONDS + 1)
    assert stores.take(job_id, alone=True).attempts == 1
    stores.tables.travel(LEASE_SECONDS + 1)
    assert stores.claim(job_id) == Suspect()
    assert stores.take(job_id, alone=True).attempts == 2


def test_what_was_claimed_alone_and_ended_is_no_suspect(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.take(job_id)
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.results.settle([GivenBack(stores.take(job_id, alone=True))])
    claim = stores.take(job_id)
    assert (claim.attempts, stores.tables.segment(job_id, "a").claimed_alone) == (1, False)


def test_a_claim_that_is_repeated_is_the_same_claim(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    requests, tokens = [stores.request(job_id, "a"), stores.request(job_id, "b")], [str(uuid.uuid4()) for _ in "ab"]
    first = stores.claims.claim(requests, tokens, LEASE_SECONDS)
    before = [stores.tables.segment(job_id, name) for name in "ab"]
    again = stores.claims.claim(requests, tokens, LEASE_SECONDS)
    facts = [[(c.task_id, c.token, c.attempts) for c in each if isinstance(c, Claimed)] for each in (first, again)]
    assert len(facts[0]) == 2
    assert facts[0] == facts[1]
    assert [stores.tables.segment(job_id, name) for name in "ab"] == before


def test_a_claim_that_is_repeated_after_its_end_is_not_made_again(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    requests, tokens = [stores.request(job_id, "a")], [str(uuid.uuid4())]
    (claim,) = stores.claims.claim(requests, tokens, LEASE_SECONDS)
    assert isinstance(claim, Claimed)
    stores.results.settle([Completed(claim, RESULT)])
    assert stores.claims.claim(requests, tokens, LEASE_SECONDS) == [AlreadyCompleted()]


def test_in_progress_without_a_lease_is_claimed(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_segment(job_id, "a", status="IN_PROGRESS")
    assert stores.take(job_id).attempts == 1


def test_retrying_is_held_until_its_time_and_then_claimed(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.results.settle([Postponed(stores.take(job_id), "too slow", 500.0)])
    before = stores.tables.segment(job_id, "a")
    answer = stores.claim(job_id)
    assert isinstance(answer, HeldElsewhere)
    assert 300 < answer.seconds <= 500.5
    assert stores.tables.segment(job_id, "a") == before
    stores.tables.travel(501)
    assert stores.take(job_id).attempts == 2
    assert stores.tables.segment(job_id, "a").retry_at is None


def test_retrying_without_a_time_is_claimed(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_segment(job_id, "a", status="RETRYING")
    assert stores.take(job_id).attempts == 1


# Claim: what cannot


def test_a_live_lease_holds_and_the_row_is_not_touched(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    before = stores.tables.segment(job_id, "a")
    answer = stores.claim(job_id)
    assert isinstance(answer, HeldElsewhere)
    assert 800 < answer.seconds <= LEASE_SECONDS + 0.5
    assert stores.tables.segment(job_id, "a") == before
    assert stores.results.settle([Completed(claim, RESULT)]).task_ids == {claim.task_id}


def test_the_workers_died_on_it_so_often_that_it_is_abandoned(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.take(job_id)
    stores.tables.travel(LEASE_SECONDS + 1)
    for _ in range(MAX_ATTEMPTS):
        last = stores.take(job_id, alone=True)
        stores.tables.travel(LEASE_SECONDS + 1)
    answer = stores.claim(job_id)
    assert isinstance(answer, Abandoned)
    assert (answer.claim.attempts, answer.claim.token == last.token) == (MAX_ATTEMPTS, False)
    assert stores.results.settle([Completed(last, RESULT)]).task_ids == set()
    assert isinstance(stores.claim(job_id), HeldElsewhere)
    assert stores.results.settle([Failed(answer.claim, "abandoned")]).task_ids == {last.task_id}
    assert stores.counters(job_id) == (0, 1, "FAILED")


def test_a_worker_that_dies_while_it_gives_up_charges_nothing_and_changes_nothing(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_segment(job_id, "a", status="IN_PROGRESS", attempts=MAX_ATTEMPTS, claimed_alone=True)
    for _ in range(3):
        answer = stores.claim(job_id)
        assert isinstance(answer, Abandoned)
        assert answer.claim.attempts == MAX_ATTEMPTS
        stores.tables.travel(LEASE_SECONDS + 1)


@pytest.mark.parametrize("status", ["QUEUED", "RETRYING"])
def test_only_a_lease_that_ran_out_abandons(stores: Stores, status: str) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_segment(job_id, "a", status=status, attempts=MAX_ATTEMPTS)
    assert stores.take(job_id).attempts == MAX_ATTEMPTS + 1


def test_completed_is_done_however_young_the_message(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    stores.complete(job_id, "a")
    before = stores.tables.segment(job_id, "a")
    assert stores.claim(job_id, age_seconds=-60) == AlreadyCompleted()
    assert stores.tables.segment(job_id, "a") == before
    assert stores.counters(job_id) == (1, 0, "IN_PROGRESS")


def test_an_older_message_does_not_revive(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.fail(job_id)
    before = stores.tables.segment(job_id, "a")
    assert stores.claim(job_id, age_seconds=60) == AlreadyFailed("no such text")
    assert stores.tables.segment(job_id, "a") == before
    assert stores.counters(job_id) == (0, 1, "FAILED")


def test_a_younger_message_revives(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    stores.complete(job_id, "b")
    stores.fail(job_id)
    assert stores.counters(job_id) == (1, 1, "FAILED")
    stores.tables.set_segment(job_id, "a", attempts=MAX_ATTEMPTS, send_count=3)
    stores.tables.travel(100)
    failed_at = stores.tables.segment(job_id, "a").failed_at
    claim = stores.take(job_id)
    row = stores.tables.segment(job_id, "a")
    assert (claim.attempts, row.attempts, row.send_count) == (1, 1, 0)
    assert (row.error_message, row.failed_at) == (None, None)
    assert stores.counters(job_id) == (1, 0, "IN_PROGRESS")
    assert failed_at is not None
    assert claim.fresh_since_us / 1_000_000 > failed_at + 99
    stores.results.settle([Completed(claim, RESULT)])
    assert stores.counters(job_id) == (2, 0, "COMPLETED")
    assert stores.tables.completion(job_id) is not None


def test_a_younger_message_of_another_manifestation_revives_nothing(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.fail(job_id)
    stores.tables.travel(100)
    request = replace(stores.request(job_id), manifestation_id="another")
    assert ask(stores.claims, [request], LEASE_SECONDS) == [ForeignManifestation("M")]
    assert stores.counters(job_id) == (0, 1, "FAILED")
    assert stores.tables.segment(job_id, "a").status == "FAILED"


def test_what_no_row_knows_is_unknown(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    for answer in (stores.claim(job_id, "b", age_seconds=90), stores.claim(str(uuid.uuid4()), age_seconds=90)):
        assert isinstance(answer, Unknown)
        assert 89 < answer.age_seconds < 400
    assert stores.counters(job_id) == (0, 0, "QUEUED")


def test_a_foreign_manifestation_is_told_the_job_s(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    stores.complete(job_id, "b")
    before = stores.tables.segment(job_id, "a")
    requests = [replace(stores.request(job_id, name), manifestation_id="another") for name in ("a", "b")]
    assert ask(stores.claims, requests, LEASE_SECONDS) == [ForeignManifestation("M")] * 2
    assert stores.tables.segment(job_id, "a") == before


def test_a_cancelled_job_gives_no_work_and_revives_nothing(stores: Stores) -> None:
    job_id = stores.tables.add_job("queued", "failed", "completed", "leased")
    stores.complete(job_id, "completed")
    stores.fail(job_id, "failed")
    stores.take(job_id, "leased")
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.tables.set_job(job_id, cancelled_at=stores.tables.now())
    assert [stores.claim(job_id, name) for name in ("queued", "failed", "completed", "leased")] == [
        JobCancelled(),
        JobCancelled(),
        AlreadyCompleted(),
        JobCancelled(),
    ]
    assert stores.tables.segment(job_id, "failed").status == "FAILED"
    assert stores.tables.segment(job_id, "queued").status == "QUEUED"


# Claim: batches


@pytest.mark.parametrize("seed", range(5))
def test_answers_stand_in_the_order_of_the_requests(stores: Stores, seed: int) -> None:
    job_id = stores.tables.add_job(
        "queued", "held", "retrying", "completed", "failed", "revived", "abandoned", "suspect"
    )
    stores.fail(job_id, "revived")
    stores.tables.travel(100)
    stores.fail(job_id, "failed")
    stores.complete(job_id, "completed")
    stores.results.settle([Postponed(stores.take(job_id, "retrying"), "too slow", 500.0)])
    stores.take(job_id, "held")
    stores.tables.set_segment(job_id, "abandoned", status="IN_PROGRESS", attempts=MAX_ATTEMPTS, claimed_alone=True)
    stores.tables.set_segment(job_id, "suspect", status="IN_PROGRESS", claim_token=str(uuid.uuid4()))
    expected = {
        "queued": Claimed,
        "held": HeldElsewhere,
        "retrying": HeldElsewhere,
        "completed": AlreadyCompleted,
        "failed": AlreadyFailed,
        "revived": Claimed,
        "abandoned": Abandoned,
        "suspect": Suspect,
        "missing": Unknown,
    }
    wanted = random.Random(seed).sample(sorted(expected), k=len(expected))
    answers = ask(stores.claims, [stores.request(job_id, name, age_seconds=50) for name in wanted], LEASE_SECONDS)
    assert [type(answer) for answer in answers] == [expected[name] for name in wanted]
    assert [a.segment_id for a in answers if isinstance(a, Claimed)] == [
        name for name in wanted if expected[name] is Claimed
    ]


def test_segments_of_several_jobs_are_kept_apart(stores: Stores) -> None:
    jobs = [stores.tables.add_job("a", "b"), stores.tables.add_job("a", "b")]
    stores.complete(jobs[1], "a")
    answers = ask(stores.claims, [stores.request(job_id) for job_id in jobs], LEASE_SECONDS)
    assert [type(answer) for answer in answers] == [Claimed, AlreadyCompleted]
    assert stores.counters(jobs[0]) == (0, 0, "IN_PROGRESS")


def test_a_foreign_message_in_the_batch_does_not_disturb_its_twin(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    foreign = replace(stores.request(job_id), manifestation_id="another")
    answers = ask(stores.claims, [foreign, stores.request(job_id), foreign], LEASE_SECONDS)
    assert [type(answer) for answer in answers] == [ForeignManifestation, Claimed, ForeignManifestation]


def test_every_claim_has_a_token_of_its_own(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b", "c")
    requests = [stores.request(job_id, name) for name in "abc"]
    tokens = []
    for _ in range(3):
        answers = ask(stores.claims, requests, LEASE_SECONDS, alone=True)
        tokens += [answer.token for answer in answers if isinstance(answer, Claimed)]
        stores.tables.travel(LEASE_SECONDS + 1)
    assert (len(tokens), len(set(tokens))) == (9, 9)


def test_a_job_stays_queued_while_nothing_of_it_is_claimed(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    stores.tables.set_segment(job_id, "a", status="RETRYING", retry_at=stores.tables.now() + 500)
    stores.claim(job_id)
    assert stores.counters(job_id) == (0, 0, "QUEUED")


# Renew


def test_a_renewed_lease_holds_longer(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    renewed, other = stores.take(job_id, "a"), stores.take(job_id, "b")
    stores.tables.travel(LEASE_SECONDS - 100)
    assert stores.claims.renew([renewed], LEASE_SECONDS) == {renewed.token}
    stores.tables.travel(200)
    assert isinstance(stores.claim(job_id, "a"), HeldElsewhere)
    assert stores.take(job_id, "b", alone=True).token != other.token


def test_a_token_stays_valid_until_somebody_else_claims(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    stores.tables.travel(LEASE_SECONDS + 1)
    assert stores.claims.renew([claim], LEASE_SECONDS) == {claim.token}
    assert isinstance(stores.claim(job_id), HeldElsewhere)
    stores.tables.travel(LEASE_SECONDS + 1)
    assert stores.results.settle([Completed(claim, RESULT)]).task_ids == {claim.task_id}


def test_only_live_tokens_are_renewed(stores: Stores) -> None:
    job_id = stores.tables.add_job("lost", "ended", "kept")
    lost, ended, kept = (stores.take(job_id, name) for name in ("lost", "ended", "kept"))
    stores.results.settle([Completed(ended, RESULT)])
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.take(job_id, "lost", alone=True)
    before = [stores.tables.segment(job_id, name) for name in ("lost", "ended")]
    assert stores.claims.renew([ended, kept, lost], LEASE_SECONDS + 500) == {kept.token}
    assert [stores.tables.segment(job_id, name) for name in ("lost", "ended")] == before


def test_renewing_nothing_is_nothing(stores: Stores) -> None:
    assert stores.claims.renew([], LEASE_SECONDS) == set()
