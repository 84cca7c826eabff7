"""How segments end, on the fake and on PostgreSQL: docs/formats.md, "Finish, fail, give back"."""

from collections.abc import Callable

import pytest

from app.core.endings import Completed, Ending, Failed, GivenBack, Postponed, Settled, Surplus
from app.core.segments import Claimed
from app.errors import DataError
from tests.support.stores import LEASE_SECONDS, RESULT, Stores

ENDINGS: dict[str, Callable[[Claimed], Ending]] = {
    "completed": lambda claim: Completed(claim, RESULT),
    "failed": lambda claim: Failed(claim, "no such text"),
    "postponed": lambda claim: Postponed(claim, "too slow", 500.0),
    "given back": GivenBack,
}
every_ending = pytest.mark.parametrize("make_ending", ENDINGS.values(), ids=ENDINGS.keys())


def test_completed_keeps_the_result(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    stores.results.settle([Postponed(stores.take(job_id), "too slow", 0.0)])
    stores.tables.travel(1)
    claim = stores.take(job_id)
    assert stores.results.settle([Completed(claim, RESULT)]) == Settled(frozenset({claim.task_id}))
    row = stores.tables.segment(job_id, "a")
    assert (row.status, row.error_message, row.attempts) == ("COMPLETED", None, 2)
    assert row.result_json is not None
    assert "Ö" in row.result_json
    assert (row.claim_token, row.lease_expires_at, row.retry_at, row.failed_at) == (None, None, None, None)
    assert stores.counters(job_id) == (1, 0, "IN_PROGRESS")


def test_failed_keeps_the_error(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    claim = stores.take(job_id)
    assert stores.results.settle([Failed(claim, "no such text")]) == Settled(frozenset({claim.task_id}))
    row = stores.tables.segment(job_id, "a")
    assert (row.status, row.error_message, row.result_json) == ("FAILED", "no such text", None)
    assert (row.claim_token, row.lease_expires_at, row.retry_at) == (None, None, None)
    assert row.failed_at is not None
    assert stores.counters(job_id) == (0, 1, "IN_PROGRESS")


def test_postponed_keeps_its_attempt_and_counts_nothing(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    assert stores.results.settle([Postponed(claim, "too slow", 500.0)]) == Settled(frozenset({claim.task_id}))
    row = stores.tables.segment(job_id, "a")
    assert (row.status, row.error_message, row.attempts) == ("RETRYING", "too slow", 1)
    assert (row.claim_token, row.lease_expires_at) == (None, None)
    assert stores.counters(job_id) == (0, 0, "IN_PROGRESS")


def test_given_back_is_not_charged_and_can_be_claimed_at_once(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    assert stores.results.settle([GivenBack(claim)]) == Settled(frozenset({claim.task_id}))
    row = stores.tables.segment(job_id, "a")
    assert (row.status, row.attempts, row.claim_token, row.lease_expires_at) == ("QUEUED", 0, None, None)
    assert stores.counters(job_id) == (0, 0, "IN_PROGRESS")
    assert stores.take(job_id).attempts == 1


@every_ending
@pytest.mark.parametrize("is_taken_over", [True, False])
def test_a_token_that_is_gone_changes_and_counts_nothing(
    stores: Stores, make_ending: Callable[[Claimed], Ending], is_taken_over: bool
) -> None:
    job_id = stores.tables.add_job("a")
    stale = stores.take(job_id)
    if is_taken_over:
        stores.tables.travel(LEASE_SECONDS + 1)
        stores.take(job_id, alone=True)
    else:
        stores.tables.requeue(job_id, "a")
    before = stores.tables.segment(job_id, "a"), stores.tables.job(job_id)
    assert stores.results.settle([make_ending(stale)]) == Settled(frozenset())
    assert (stores.tables.segment(job_id, "a"), stores.tables.job(job_id)) == before
    assert stores.tables.completion(job_id) is None


@every_ending
@pytest.mark.parametrize("first", ENDINGS)
def test_what_has_ended_is_not_ended_again(
    stores: Stores, make_ending: Callable[[Claimed], Ending], first: str
) -> None:
    """The same ending again is answered as settled, since it is; another one is not."""
    job_id = stores.tables.add_job("a", "b")
    claim = stores.take(job_id)
    stores.results.settle([ENDINGS[first](claim)])
    before = stores.tables.segment(job_id, "a"), stores.tables.job(job_id)
    is_the_same = make_ending is ENDINGS[first]
    assert stores.results.settle([make_ending(claim)]) == Settled(frozenset({claim.task_id} if is_the_same else ()))
    assert (stores.tables.segment(job_id, "a"), stores.tables.job(job_id)) == before


@every_ending
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "RETRYING"])
def test_what_somebody_ended_by_hand_is_not_ended_again_by_a_leftover_token(
    stores: Stores, make_ending: Callable[[Claimed], Ending], status: str
) -> None:
    job_id = stores.tables.add_job("a")
    claim = stores.take(job_id)
    stores.tables.set_segment(job_id, "a", status=status)
    before = stores.tables.segment(job_id, "a"), stores.tables.job(job_id)
    assert stores.results.settle([make_ending(claim)]) == Settled(frozenset())
    assert stores.claims.renew([claim], LEASE_SECONDS + 500) == set()
    assert (stores.tables.segment(job_id, "a"), stores.tables.job(job_id)) == before


def test_a_stale_token_in_the_batch_takes_nothing_from_the_others(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b", "c")
    stale = stores.take(job_id, "a")
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.take(job_id, "a", alone=True)
    done, failed = stores.take(job_id, "b"), stores.take(job_id, "c")
    settled = stores.results.settle([Completed(stale, "[]"), Completed(done, RESULT), Failed(failed, "gone")])
    assert settled == Settled(frozenset({done.task_id, failed.task_id}))
    assert stores.tables.segment(job_id, "a").status == "IN_PROGRESS"
    assert stores.counters(job_id) == (1, 1, "IN_PROGRESS")


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("complete", "complete", "COMPLETED"),
        ("complete", "fail", "FAILED"),
        ("fail", "complete", "FAILED"),
        ("fail", "fail", "FAILED"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_the_counters_decide_the_job_s_status(
    stores: Stores, first: str, second: str, status: str, together: bool
) -> None:
    job_id = stores.tables.add_job("a", "b")
    endings: list[Ending] = [
        Completed(stores.take(job_id, name), RESULT) if how == "complete" else Failed(stores.take(job_id, name), "gone")
        for name, how in (("a", first), ("b", second))
    ]
    batches = [endings] if together else [[ending] for ending in endings]
    announcements = [each for batch in batches for each in stores.results.settle(batch).announcements]
    assert stores.tables.job(job_id).status == status
    assert [each.job_id for each in announcements] == ([job_id] if status == "COMPLETED" else [])
    assert (stores.tables.completion(job_id) is not None) == (status == "COMPLETED")


def test_each_job_of_a_batch_is_counted_and_announced(stores: Stores) -> None:
    jobs = [stores.tables.add_job("a", "b", manifestation_id="M") for _ in range(3)]
    claims = [stores.take(job_id, name) for job_id in jobs for name in "ab"]
    settled = stores.results.settle([Completed(claim, RESULT) for claim in claims[1:]])
    assert settled.task_ids == {claim.task_id for claim in claims[1:]}
    assert [stores.counters(job_id) for job_id in jobs] == [
        (1, 0, "IN_PROGRESS"),
        (2, 0, "COMPLETED"),
        (2, 0, "COMPLETED"),
    ]
    assert {(each.job_id, each.manifestation_id) for each in settled.announcements} == {
        (jobs[1], "M"),
        (jobs[2], "M"),
    }


def test_more_segments_than_rows_leave_the_job_open(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", total=2)
    stores.complete(job_id, "a")
    assert stores.counters(job_id) == (1, 0, "IN_PROGRESS")
    assert stores.tables.completion(job_id) is None


@pytest.mark.parametrize("total", [0, 1, 2])
def test_more_rows_than_counted_end_with_their_job(stores: Stores, total: int) -> None:
    job_id = stores.tables.add_job("a", "b", "c", total=total)
    for name in "ab":
        settled = stores.complete(job_id, name)
        assert (settled.announcements, settled.surpluses) == ((), ())
        assert stores.counters(job_id)[2] == "IN_PROGRESS"
    settled = stores.complete(job_id, "c")
    assert stores.counters(job_id) == (3, 0, "COMPLETED")
    assert [each.job_id for each in settled.announcements] == [job_id]
    assert settled.surpluses == (Surplus(job_id, total, 3),)


def test_a_failed_surplus_fails_its_job(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b", total=1)
    stores.complete(job_id, "a")
    stores.fail(job_id, "b")
    assert stores.counters(job_id) == (1, 1, "FAILED")
    assert stores.tables.completion(job_id) is None


def test_a_row_that_comes_after_its_job_was_completed_ends_too(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b", total=1)
    stores.complete(job_id, "a")
    stores.tables.set_job(job_id, status="COMPLETED")
    assert stores.complete(job_id, "b").announcements == ()
    assert stores.counters(job_id) == (2, 0, "COMPLETED")


def test_a_settling_that_is_repeated_announces_its_job_as_the_first_time(stores: Stores) -> None:
    job_id = stores.tables.add_job("a", "b")
    endings = [Completed(stores.take(job_id, name), RESULT) for name in "ab"]
    first = stores.results.settle(endings)
    before = stores.tables.job(job_id), stores.tables.completion(job_id)
    assert len(first.announcements) == 1
    assert stores.results.settle(endings) == first
    assert (stores.tables.job(job_id), stores.tables.completion(job_id)) == before
    stores.outbox.mark_sent(first.announcements)
    assert stores.results.settle(endings) == Settled(first.task_ids)


@pytest.mark.parametrize("result", ["{", '["\\u0000"]'])
def test_a_refused_value_changes_nothing_of_its_batch(stores: Stores, result: str) -> None:
    job_id = stores.tables.add_job("a", "b")
    good, bad = stores.take(job_id, "a"), stores.take(job_id, "b")
    before = [stores.tables.segment(job_id, name) for name in "ab"]
    with pytest.raises(DataError):
        stores.results.settle([Completed(good, RESULT), Completed(bad, result)])
    assert [stores.tables.segment(job_id, name) for name in "ab"] == before
    assert stores.counters(job_id) == (0, 0, "IN_PROGRESS")
    assert stores.results.settle([Completed(good, RESULT)]).task_ids == {good.task_id}


def test_settling_nothing_is_nothing(stores: Stores) -> None:
    assert stores.results.settle([]) == Settled(frozenset())
