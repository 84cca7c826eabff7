"""The outbox and the sweep's statements, on the fake and on PostgreSQL: docs/formats.md, "Outbox", "Sweep"."""

import pytest

from app.core.endings import Postponed
from tests.support.stores import LEASE_SECONDS, Stores

OUTBOX_LEASE_SECONDS = 30
RESEND_AFTER_SECONDS = 900.0


def complete_job(stores: Stores) -> str:
    """A COMPLETED job whose finisher died before sending; its lease on the outbox row is running."""
    job_id = stores.tables.add_job("a")
    stores.complete(job_id, "a")
    return job_id


def test_a_completed_job_has_one_row_leased_to_its_finisher(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    (announcement,) = stores.complete(job_id, "a").announcements
    row = stores.tables.completion(job_id)
    assert row is not None
    assert (row.manifestation_id, row.lease_token, row.sent_at) == ("M", announcement.token, None)
    assert stores.outbox.lease_unsent(10) == []
    stores.outbox.mark_sent([announcement])
    row = stores.tables.completion(job_id)
    assert row is not None
    assert row.sent_at is not None
    assert (row.lease_token, row.leased_until, row.send_count) == (None, None, 1)
    stores.tables.travel(9_999)
    assert stores.outbox.lease_unsent(10) == []


def test_a_lease_that_ran_out_goes_to_somebody_else_whose_token_alone_marks(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    (first,) = stores.complete(job_id, "a").announcements
    stores.tables.travel(OUTBOX_LEASE_SECONDS + 1)
    (second,) = stores.outbox.lease_unsent(10)
    assert (second.job_id, second.manifestation_id, second.token == first.token) == (job_id, "M", False)
    assert stores.outbox.lease_unsent(10) == []
    before = stores.tables.completion(job_id)
    stores.outbox.mark_sent([first])
    assert stores.tables.completion(job_id) == before
    stores.outbox.mark_sent([second])
    stores.tables.travel(OUTBOX_LEASE_SECONDS + 1)
    assert stores.outbox.lease_unsent(10) == []


def test_only_so_many_are_leased_and_only_of_one_job_if_asked(stores: Stores) -> None:
    jobs = {complete_job(stores) for _ in range(5)}
    stores.tables.travel(OUTBOX_LEASE_SECONDS + 1)
    one = min(jobs)
    assert [each.job_id for each in stores.outbox.lease_unsent(10, one)] == [one]
    leased = [each.job_id for each in stores.outbox.lease_unsent(3)]
    assert len(leased) == 3
    rest = [each.job_id for each in stores.outbox.lease_unsent(10)]
    assert sorted([one, *leased, *rest]) == sorted(jobs)


def test_a_job_completed_again_is_announced_again_in_the_same_row(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    (first,) = stores.complete(job_id, "a").announcements
    stores.outbox.mark_sent([first])
    stores.tables.requeue(job_id, "a")
    (second,) = stores.complete(job_id, "a").announcements
    row = stores.tables.completion(job_id)
    assert row is not None
    assert (row.sent_at, row.lease_token) == (None, second.token)


def test_a_job_that_was_reopened_before_it_was_announced_waits_until_it_completes(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    (first,) = stores.complete(job_id, "a").announcements
    stores.tables.requeue(job_id, "a")
    stores.tables.travel(OUTBOX_LEASE_SECONDS + 1)
    assert stores.outbox.lease_unsent(10) == stores.outbox.lease_unsent(10, job_id) == []
    assert len(stores.complete(job_id, "a").announcements) == 1
    stores.outbox.mark_sent([first])
    stores.tables.travel(OUTBOX_LEASE_SECONDS + 1)
    assert [each.job_id for each in stores.outbox.lease_unsent(10)] == [job_id]


def end_by_hand(stores: Stores, total: int, *statuses: str) -> str:
    """A job whose rows and counters an operator has written, but not its status."""
    names = [f"{at}" for at in range(len(statuses))]
    job_id = stores.tables.add_job(*names, total=total)
    for name, status in zip(names, statuses, strict=True):
        stores.tables.set_segment(job_id, name, status=status)
    stores.tables.set_job(
        job_id, completed_segments=statuses.count("COMPLETED"), failed_segments=statuses.count("FAILED")
    )
    return job_id


def test_jobs_whose_counters_have_ended_get_their_status(stores: Stores) -> None:
    complete = end_by_hand(stores, 2, "COMPLETED", "COMPLETED")
    failed = end_by_hand(stores, 2, "COMPLETED", "FAILED")
    open_ = end_by_hand(stores, 2, "COMPLETED", "QUEUED")
    assert sorted(stores.outbox.finish_forgotten()) == sorted([(complete, "COMPLETED"), (failed, "FAILED")])
    assert stores.counters(open_)[2] == "QUEUED"
    assert stores.outbox.finish_forgotten() == []


def test_a_job_with_more_rows_than_its_total_ends_when_they_have(stores: Stores) -> None:
    complete = end_by_hand(stores, 1, "COMPLETED", "COMPLETED")
    failed = end_by_hand(stores, 0, "COMPLETED", "FAILED")
    for status in ("QUEUED", "IN_PROGRESS", "RETRYING"):
        end_by_hand(stores, 1, "COMPLETED", status)
    end_by_hand(stores, 0, "QUEUED")
    assert sorted(stores.outbox.finish_forgotten()) == sorted([(complete, "COMPLETED"), (failed, "FAILED")])
    assert [each.job_id for each in stores.outbox.lease_unsent(10)] == [complete]


def test_a_job_with_fewer_rows_than_its_total_or_none_does_not_end(stores: Stores) -> None:
    end_by_hand(stores, 3, "COMPLETED", "COMPLETED")
    end_by_hand(stores, 0)
    end_by_hand(stores, 1)
    assert stores.outbox.finish_forgotten() == []


def test_a_job_that_is_ended_is_announced_even_if_it_was_before(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.outbox.mark_sent(stores.complete(job_id, "a").announcements)
    stores.tables.set_job(job_id, status="IN_PROGRESS")
    assert stores.outbox.finish_forgotten() == [(job_id, "COMPLETED")]
    assert [each.job_id for each in stores.outbox.lease_unsent(10)] == [job_id]


def test_of_one_job_only_if_asked(stores: Stores) -> None:
    jobs = [end_by_hand(stores, 1, "COMPLETED") for _ in range(2)]
    assert stores.outbox.finish_forgotten(jobs[1]) == [(jobs[1], "COMPLETED")]
    assert stores.counters(jobs[0])[2] == "QUEUED"
    for job_id in jobs:
        stores.tables.set_job(job_id, status="COMPLETED")
    assert stores.outbox.add_missing(jobs[1]) == []
    assert stores.outbox.add_missing(jobs[0]) == [jobs[0]]


def test_a_completed_job_without_a_row_gets_one_that_anybody_may_send(stores: Stores) -> None:
    missing, unfinished, failed, present = (stores.tables.add_job("a") for _ in range(4))
    stores.tables.set_job(missing, completed_segments=1, status="COMPLETED")
    stores.tables.set_job(unfinished, status="COMPLETED")
    stores.fail(failed)
    stores.complete(present, "a")
    assert stores.outbox.add_missing() == [missing]
    assert stores.outbox.add_missing() == []
    assert [each.job_id for each in stores.outbox.lease_unsent(10)] == [missing]


def test_old_jobs_are_looked_at_only_when_asked_for(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_job(job_id, completed_segments=1, status="COMPLETED")
    stores.tables.travel(86_400 + 60)
    assert stores.outbox.add_missing() == []
    assert stores.outbox.add_missing(job_id) == [job_id]


# The sweep's re-sending


def add_job(stores: Stores, *names: str) -> str:
    """A job whose producer gave the spans; its id."""
    job_id = stores.tables.add_job(*names)
    for name in names:
        stores.tables.set_segment(job_id, name, span_start=3, span_end=4)
    return job_id


def resend(
    stores: Stores, limit: int = 100, job_id: str | None = None, after_seconds: float | None = None
) -> list[str]:
    """Ids of the segments that are to be sent again."""
    return [segment.segment_id for segment in stores.outbox.mark_for_resending(limit, job_id, after_seconds)]


def test_untouched_segments_are_sent_again_after_waits_that_double(stores: Stores) -> None:
    job_id = add_job(stores, "a")
    for count in range(4):
        wait_seconds = RESEND_AFTER_SECONDS * 2**count
        stores.tables.travel(wait_seconds - 100)
        assert resend(stores) == []
        stores.tables.travel(101)
        assert resend(stores) == ["a"]
        assert stores.tables.segment(job_id, "a").send_count == count + 1
        assert resend(stores) == []


def test_an_operator_s_wait_counts_from_the_last_sending_and_doubles_too(stores: Stores) -> None:
    job_id = add_job(stores, "a")
    stores.tables.travel(200)
    assert resend(stores, after_seconds=201) == []
    stores.tables.set_segment(job_id, "a", last_sent_at=stores.tables.now() - 100)
    assert resend(stores, after_seconds=150) == []
    assert resend(stores, after_seconds=50) == ["a"]
    stores.tables.travel(90)
    assert resend(stores, after_seconds=50) == []
    stores.tables.travel(20)
    assert resend(stores, after_seconds=50) == ["a"]
    stores.tables.travel(4 * RESEND_AFTER_SECONDS - 100)
    assert resend(stores) == []
    stores.tables.travel(101)
    assert resend(stores) == ["a"]


@pytest.mark.parametrize("after_seconds", [None, 0.0])
def test_what_somebody_works_on_or_has_ended_is_not_sent_again(stores: Stores, after_seconds: float | None) -> None:
    names = ("leased", "retrying", "completed", "failed", "lease ran out", "retry is due", "queued")
    job_id = add_job(stores, *names)
    stores.complete(job_id, "completed")
    stores.fail(job_id, "failed")
    stores.take(job_id, "lease ran out")
    stores.results.settle([Postponed(stores.take(job_id, "retry is due"), "too slow", 10.0)])
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.take(job_id, "leased")
    stores.results.settle([Postponed(stores.take(job_id, "retrying"), "too slow", 500.0)])
    assert sorted(resend(stores, after_seconds=after_seconds)) == ["lease ran out", "queued", "retry is due"]


def test_cancelled_jobs_are_left_alone(stores: Stores) -> None:
    job_id = add_job(stores, "a")
    stores.tables.set_job(job_id, cancelled_at=stores.tables.now())
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    assert resend(stores) == []
    assert resend(stores, job_id=job_id) == []
    assert resend(stores, job_id=job_id, after_seconds=0.0) == []


def test_only_so_many_are_sent_again_the_longest_untouched_first(stores: Stores) -> None:
    names = [f"{number}" for number in range(5)]
    job_id = add_job(stores, *names)
    for age, name in enumerate(names):
        stores.tables.set_segment(job_id, name, next_send_at=stores.tables.now() - 10 - age)
    assert sorted(resend(stores, limit=2)) == ["3", "4"]
    assert sorted(resend(stores)) == ["0", "1", "2"]


@pytest.mark.parametrize("after_seconds", [None, 0.0])
def test_jobs_share_what_is_sent_again_so_that_none_waits_behind_another(
    stores: Stores, after_seconds: float | None
) -> None:
    add_job(stores, *(f"old {number}" for number in range(20)))
    stores.tables.travel(1_000)
    add_job(stores, "the only one")
    add_job(stores, "first", "second")
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    sent = resend(stores, limit=5, after_seconds=after_seconds)
    assert {"the only one", "first", "second"} <= set(sent)
    assert len(sent) == 5


def test_only_segments_of_one_job_if_asked(stores: Stores) -> None:
    jobs = [add_job(stores, "a"), add_job(stores, "b")]
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    assert resend(stores, job_id=jobs[1]) == ["b"]
    assert resend(stores) == ["a"]


def test_what_has_no_span_is_found_and_not_marked(stores: Stores) -> None:
    job_id = stores.tables.add_job("known", "unknown", manifestation_id="M2")
    stores.tables.set_segment(job_id, "known", span_start=3, span_end=4)
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    found = {each.segment_id: each for each in stores.outbox.mark_for_resending(10)}
    known, unknown = found["known"], found["unknown"]
    assert (known.job_id, known.manifestation_id, known.start, known.end) == (job_id, "M2", 3, 4)
    assert (unknown.start, unknown.end) == (None, None)
    row = stores.tables.segment(job_id, "unknown")
    assert (unknown.task_id, row.send_count, row.last_sent_at) == (row.task_id, 0, None)
    assert resend(stores) == ["unknown"]


def test_what_has_no_span_anywhere_is_put_off_for_waits_that_double(stores: Stores) -> None:
    job_id = add_job(stores, "known")
    unknown = stores.tables.add_job("unknown")
    tasks = [stores.tables.segment(job_id, "known").task_id, stores.tables.segment(unknown, "unknown").task_id]
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    stores.outbox.put_off(tasks)
    assert resend(stores) == ["known"]
    row = stores.tables.segment(unknown, "unknown")
    assert (row.send_count, row.last_sent_at) == (1, None)
    stores.tables.travel(2 * RESEND_AFTER_SECONDS - 100)
    assert resend(stores) == []
    stores.tables.travel(101)
    assert sorted(resend(stores)) == ["known", "unknown"]


def test_a_failed_segment_that_is_queued_again_waits_without_doubling(stores: Stores) -> None:
    job_id = add_job(stores, "a")
    stores.tables.set_segment(job_id, "a", send_count=5, next_send_at=stores.tables.now() + 99_999)
    stores.fail(job_id)
    stores.tables.requeue(job_id, "a")
    stores.tables.travel(RESEND_AFTER_SECONDS - 100)
    assert resend(stores) == []
    stores.tables.travel(101)
    assert resend(stores) == ["a"]


def test_spans_are_stored_where_there_are_none(stores: Stores) -> None:
    job_id = stores.tables.add_job("known", "unknown")
    stores.tables.set_segment(job_id, "known", span_start=3, span_end=4)
    rows = [stores.tables.segment(job_id, name) for name in ("known", "unknown")]
    stores.outbox.store_spans([(row.task_id, 7, 8) for row in rows])
    rows = [stores.tables.segment(job_id, name) for name in ("known", "unknown")]
    assert [(row.span_start, row.span_end) for row in rows] == [(3, 4), (7, 8)]
