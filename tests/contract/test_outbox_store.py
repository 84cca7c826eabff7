"""The outbox and the sweep's statements, on the fake and on PostgreSQL: shared/spec/lifecycle.md, "Outbox", "Sweep"."""

from app.ports import Postponed
from tests.contract.stores import LEASE_SECONDS, Stores

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


def test_jobs_whose_counters_have_ended_get_their_status(stores: Stores) -> None:
    complete, failed, empty, open_ = (stores.tables.add_job("a", "b") for _ in range(4))
    stores.tables.set_job(complete, completed_segments=2, status="IN_PROGRESS")
    stores.tables.set_job(failed, completed_segments=1, failed_segments=1)
    stores.tables.set_job(empty, total_segments=0)
    stores.tables.set_job(open_, completed_segments=1)
    assert sorted(stores.outbox.finish_forgotten()) == sorted([(complete, "COMPLETED"), (failed, "FAILED")])
    assert stores.counters(empty)[2] == stores.counters(open_)[2] == "QUEUED"
    assert stores.outbox.finish_forgotten() == []


def test_of_one_job_only_if_asked(stores: Stores) -> None:
    jobs = [stores.tables.add_job("a") for _ in range(2)]
    for job_id in jobs:
        stores.tables.set_job(job_id, completed_segments=1)
    assert stores.outbox.finish_forgotten(jobs[1]) == [(jobs[1], "COMPLETED")]
    assert stores.counters(jobs[0])[2] == "QUEUED"
    assert stores.outbox.add_missing(jobs[0]) == []
    assert stores.outbox.add_missing(jobs[1]) == [jobs[1]]


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


def resend(stores: Stores, limit: int = 100, job_id: str | None = None) -> list[str]:
    """Ids of the segments that are to be sent again."""
    unsent = stores.outbox.mark_for_resending(limit, job_id, RESEND_AFTER_SECONDS)
    return [segment.segment_id for segment in unsent]


def test_untouched_segments_are_sent_again_after_waits_that_double(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    for count in range(4):
        wait_seconds = RESEND_AFTER_SECONDS * 2**count
        stores.tables.travel(wait_seconds - 100)
        assert resend(stores) == []
        stores.tables.travel(101)
        assert resend(stores) == ["a"]
        assert stores.tables.segment(job_id, "a").send_count == count + 1
        assert resend(stores) == []


def test_the_wait_counts_from_the_last_sending(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    stores.tables.set_segment(job_id, "a", last_sent_at=stores.tables.now() - 100)
    assert resend(stores) == []
    stores.tables.travel(RESEND_AFTER_SECONDS)
    assert resend(stores) == ["a"]


def test_what_somebody_works_on_or_has_ended_is_not_sent_again(stores: Stores) -> None:
    names = ("leased", "retrying", "completed", "failed", "lease ran out", "retry is due", "queued")
    job_id = stores.tables.add_job(*names)
    stores.complete(job_id, "completed")
    stores.fail(job_id, "failed")
    stores.take(job_id, "lease ran out")
    stores.results.settle([Postponed(stores.take(job_id, "retry is due"), "too slow", 10.0)])
    stores.tables.travel(LEASE_SECONDS + 1)
    stores.take(job_id, "leased")
    stores.results.settle([Postponed(stores.take(job_id, "retrying"), "too slow", 500.0)])
    assert sorted(resend(stores)) == ["lease ran out", "queued", "retry is due"]


def test_cancelled_jobs_are_left_alone(stores: Stores) -> None:
    job_id = stores.tables.add_job("a")
    stores.tables.set_job(job_id, cancelled_at=stores.tables.now())
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    assert resend(stores) == []
    assert resend(stores, job_id=job_id) == []


def test_only_so_many_are_sent_again_the_longest_untouched_first(stores: Stores) -> None:
    names = [f"{number}" for number in range(5)]
    job_id = stores.tables.add_job(*names)
    stores.tables.travel(99_999)
    for age, name in enumerate(names):
        stores.tables.set_segment(job_id, name, last_sent_at=stores.tables.now() - 2_000 - age)
    assert sorted(resend(stores, limit=2)) == ["3", "4"]
    assert sorted(resend(stores)) == ["0", "1", "2"]


def test_only_segments_of_one_job_if_asked(stores: Stores) -> None:
    jobs = [stores.tables.add_job("a"), stores.tables.add_job("b")]
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    assert resend(stores, job_id=jobs[1]) == ["b"]
    assert resend(stores) == ["a"]


def test_a_resent_segment_comes_with_its_span_if_it_is_known(stores: Stores) -> None:
    job_id = stores.tables.add_job("known", "unknown", manifestation_id="M2")
    stores.tables.set_segment(job_id, "known", span_start=3, span_end=4)
    stores.tables.travel(RESEND_AFTER_SECONDS + 1)
    unsent = {each.segment_id: each for each in stores.outbox.mark_for_resending(10, None, RESEND_AFTER_SECONDS)}
    known, unknown = unsent["known"], unsent["unknown"]
    assert (known.job_id, known.manifestation_id, known.start, known.end) == (job_id, "M2", 3, 4)
    assert (unknown.start, unknown.end) == (None, None)
    assert unknown.task_id == stores.tables.segment(job_id, "unknown").task_id


def test_spans_are_stored_where_there_are_none(stores: Stores) -> None:
    job_id = stores.tables.add_job("known", "unknown")
    stores.tables.set_segment(job_id, "known", span_start=3, span_end=4)
    rows = [stores.tables.segment(job_id, name) for name in ("known", "unknown")]
    stores.outbox.store_spans([(row.task_id, 7, 8) for row in rows])
    rows = [stores.tables.segment(job_id, name) for name in ("known", "unknown")]
    assert [(row.span_start, row.span_end) for row in rows] == [(3, 4), (7, 8)]
