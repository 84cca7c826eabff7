"""The service over stores in memory when something fails: what is charged, what is not, and who is spared."""

import logging
import threading
from dataclasses import replace
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome
from app.errors import DataError, PermanentError, StatementTimeoutError, TransientError
from app.tasks import TaskService
from app.threads.gate import Gate
from tests.support.task_rig import LEASE_SECONDS, MAX_ATTEMPTS, Rig, messages, outage


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO, "app.tasks")
    return Rig()


# Outages: nothing is charged


def test_an_outage_while_claiming_hides_all_and_pauses(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.claim_errors = [outage()]
    assert rig.process(job_id, "1", "2") == [Hide(5.0, ANY)] * 2
    assert not rig.gate.is_open
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2
    assert rig.graph.calls == []


def test_an_outage_of_the_graph_gives_all_back_and_pauses(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.graph.errors[2] = outage("Neo4j")
    assert rig.process(job_id, "1", "2") == [Hide(5.0, "given back")] * 2
    assert not rig.gate.is_open
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2
    assert rig.leases.held == set()


def test_an_outage_while_storing_owes_the_segments_and_pauses(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.settle_errors = [outage(), outage()]
    assert rig.process(job_id, "1", "2") == [Hide(5.0, ANY)] * 2
    assert not rig.gate.is_open
    assert rig.states(job_id, "1", "2") == [("IN_PROGRESS", 1)] * 2
    with pytest.raises(type(outage())):
        rig.service.catch_up()
    rig.service.catch_up()
    assert rig.states(job_id, "1", "2") == [("COMPLETED", 1)] * 2
    assert [each.job_id for each in rig.announced] == [job_id]


def test_what_is_owed_is_written_once(rig: Rig) -> None:
    job_id = rig.add_job("1")
    rig.graph.errors[1] = TransientError("too slow")
    rig.database.settle_errors = [outage()]
    rig.process(job_id, "1")
    rig.service.catch_up()
    assert rig.states(job_id, "1") == [("RETRYING", 1)]
    rig.database.travel(1_000)
    rival = rig.take(job_id, "1")
    rig.service.catch_up()
    assert rig.row(job_id, "1").claim_token == rival.token


def test_results_that_are_owed_take_only_so_much_memory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.service.settling.MAX_OWED_BYTES", 8)
    job_id = rig.add_job("1", "2", "3")
    rig.database.settle_errors = [outage()]
    rig.process(job_id, "1", "2", "3")
    rig.service.catch_up()
    assert rig.states(job_id, "1", "2", "3") == [("COMPLETED", 1), ("COMPLETED", 1), ("QUEUED", 0)]


def test_a_settling_whose_reply_was_lost_is_known_when_it_is_repeated(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.lost_settle_replies = [outage()]
    assert rig.process(job_id, "1", "2") == [Hide(5.0, ANY)] * 2
    rig.service.catch_up()
    assert rig.states(job_id, "1", "2") == [("COMPLETED", 1)] * 2
    assert (rig.database.job(job_id).completed_segments, rig.database.job(job_id).status) == (2, "COMPLETED")
    assert [each.job_id for each in rig.announced] == [job_id]


def test_a_claim_whose_reply_was_lost_is_given_back_uncharged(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.lost_claim_replies = [outage()]
    assert rig.process(job_id, "1", "2") == [Hide(5.0, ANY)] * 2
    assert rig.states(job_id, "1", "2") == [("IN_PROGRESS", 1)] * 2
    rig.service.catch_up()
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2
    assert rig.graph.calls == []


def test_a_probe_repeats_the_claim_that_failed(rig: Rig) -> None:
    """A PostgreSQL that answers but takes no writes does not open the gate."""
    job_id = rig.add_job("1", "2")
    rig.database.claim_errors = [outage(), outage()]
    rig.process(job_id, "1", "2")
    with pytest.raises(type(outage())):
        rig.service.catch_up()
    rig.service.catch_up()
    assert rig.database.batches == [["1", "2"]]
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2


def test_what_is_owed_and_was_claimed_since_is_left_alone(rig: Rig) -> None:
    job_id = rig.add_job("1")
    rig.database.settle_errors = [outage()]
    rig.process(job_id, "1")
    rig.database.travel(1_000)
    rival = rig.take(job_id, "1")
    before = rig.row(job_id, "1")
    rig.service.catch_up()
    assert (rig.row(job_id, "1"), before.claim_token) == (before, rival.token)


def test_a_probe_that_succeeds_at_once_finds_what_is_owed(rig: Rig) -> None:
    """The gate may be probed by another thread in the moment in which it is closed."""

    class Probed(Gate):
        def close(self, service: str, reason: str) -> None:
            super().close(service, reason)
            tasks.catch_up()

    tasks: TaskService = rig.make_service(Probed())
    job_id = rig.add_job("1")
    rig.database.settle_errors = [outage()]
    assert tasks.process([rig.request(job_id, "1")]) == [Hide(5.0, ANY)]
    assert rig.states(job_id, "1") == [("COMPLETED", 1)]


def test_an_outage_in_the_middle_of_one_by_one_gives_the_rest_back(rig: Rig) -> None:
    job_id = rig.add_job("1", "2", "3", "4")
    rig.graph.errors = {2: TransientError("too slow"), 3: outage("Neo4j")}
    outcomes = rig.process(job_id, "1", "2", "3", "4")
    assert outcomes == [Done(), Hide(ANY, "too slow"), Hide(5.0, "given back"), Hide(5.0, "given back")]
    assert rig.states(job_id, "1", "2", "3", "4") == [
        ("COMPLETED", 1),
        ("RETRYING", 1),
        ("QUEUED", 0),
        ("QUEUED", 0),
    ]
    assert [4] not in rig.graph.calls


# Transient, permanent, exhausted, and bugs


def test_a_transient_failure_is_retried_later(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3")
    rig.graph.errors[3] = TransientError("too slow")
    (outcome,) = rig.process(job_id, "3")
    assert isinstance(outcome, Hide)
    row = rig.row(job_id, "3")
    assert (row.status, row.error_message, row.attempts) == ("RETRYING", "too slow", 1)
    assert row.retry_at is not None
    assert 2.5 <= row.retry_at - rig.database.now() <= 5.0
    assert row.retry_at < rig.database.now() + outcome.seconds
    assert rig.gate.is_open
    assert [record.levelname for record in caplog.records[3:]] == ["WARNING"]
    rig.graph.errors.clear()
    rig.database.travel(outcome.seconds)
    assert rig.process(job_id, "3") == [Done()]


def test_the_last_attempt_that_fails_is_the_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3")
    rig.graph.errors[3] = TransientError("too slow")
    for _ in range(MAX_ATTEMPTS - 1):
        (outcome,) = rig.process(job_id, "3")
        assert isinstance(outcome, Hide)
        rig.database.travel(outcome.seconds)
    reason = f"failed {MAX_ATTEMPTS} times, the last time with: too slow"
    assert rig.process(job_id, "3") == [Dead(reason, recorded=True)]
    assert (rig.row(job_id, "3").status, rig.row(job_id, "3").error_message) == ("FAILED", reason)
    assert messages(caplog, logging.ERROR) == [f"Segment 3 of job {job_id} has failed {MAX_ATTEMPTS} times: too slow"]


def test_a_transient_failure_to_claim_charges_nothing(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.claim_errors = [TransientError("lock timeout")]
    outcomes = rig.process(job_id, "1", "2")
    assert outcomes == [Hide(ANY, "lock timeout")] * 2
    assert rig.gate.is_open
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2


def test_what_a_transient_failure_kept_from_being_stored_is_stored_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tasks.CATCH_UP_SECONDS", 0.0)
    job_id = rig.add_job("1", "2")
    rig.database.settle_errors = [TransientError("no connection was free")]
    assert rig.process(job_id, "1") == [Hide(5.0, "no connection was free")]
    assert rig.gate.is_open
    assert rig.process(job_id, "2") == [Done()]
    assert rig.states(job_id, "1", "2") == [("COMPLETED", 1), ("COMPLETED", 1)]


def test_a_permanent_failure_is_recorded_and_dead(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3", "4")
    rig.graph.answers[3] = PermanentError("the manifestation 'M' does not exist")
    assert rig.process(job_id, "3", "4") == [Dead("the manifestation 'M' does not exist", recorded=True), Done()]
    assert rig.row(job_id, "3").error_message == "the manifestation 'M' does not exist"
    assert rig.database.job(job_id).status == "FAILED"
    assert messages(caplog, logging.WARNING) == [
        f"Segment 3 of job {job_id} has failed: the manifestation 'M' does not exist"
    ]


def test_a_bug_is_charged_to_its_segment_and_shown_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("2", "3", "4")
    rig.graph.errors[3] = ZeroDivisionError("division by\x00 zero")
    outcomes = rig.process(job_id, "2", "3", "4")
    assert outcomes == [Done(), Hide(ANY, ANY), Done()]
    row = rig.row(job_id, "3")
    assert (row.status, row.attempts, row.error_message) == ("RETRYING", 1, "ZeroDivisionError: division by\\x00 zero")
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        f"Segment 3 of job {job_id} met a bug"
    ]


def test_errors_are_kept_short(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.graph.answers[3] = PermanentError("x" * 10_000 + "\ud800")
    rig.process(job_id, "3")
    assert rig.row(job_id, "3").error_message == "x" * 2_000


# One bad message never spoils its neighbours


def test_a_batch_that_fails_is_walked_one_by_one(rig: Rig) -> None:
    job_id = rig.add_job("1", "2", "3")
    rig.graph.errors[2] = TransientError("too slow")
    assert rig.process(job_id, "1", "2", "3") == [Done(), Hide(ANY, "too slow"), Done()]
    assert rig.graph.calls == [[1, 2, 3], [1], [2], [3]]
    assert rig.states(job_id, "1", "2", "3") == [("COMPLETED", 1), ("RETRYING", 1), ("COMPLETED", 1)]


def test_one_by_one_takes_only_so_long(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.ONE_BY_ONE_SECONDS", -1.0)
    job_id = rig.add_job("1", "2")
    rig.graph.errors[2] = TransientError("too slow")
    assert rig.process(job_id, "1", "2") == [Hide(5.0, "given back")] * 2
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0)] * 2


def test_a_refused_result_fails_its_own_segment_only(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("1", "2", "3")
    rig.graph.answers[2] = '["\\u0000"]'
    assert rig.process(job_id, "1", "2", "3") == [
        Done(),
        Dead("the fake refuses NUL as PostgreSQL does", recorded=True),
        Done(),
    ]
    assert rig.states(job_id, "1", "2", "3") == [("COMPLETED", 1), ("FAILED", 1), ("COMPLETED", 1)]
    assert len(messages(caplog, logging.WARNING)) == 1
    assert rig.announced == []


def test_a_refused_result_beside_the_last_segment_of_a_job_does_not_silence_it(rig: Rig) -> None:
    bad, good = rig.add_job("1"), rig.add_job("2")
    rig.graph.answers[1] = "{"
    outcomes = rig.service.process([rig.request(bad, "1"), rig.request(good, "2")])
    assert [type(outcome) for outcome in outcomes] == [Dead, Done]
    assert [each.job_id for each in rig.announced] == [good]


def test_an_ending_that_cannot_be_stored_at_all_comes_back_late(rig: Rig) -> None:
    job_id = rig.add_job("1")
    rig.database.settle_errors = [DataError("full"), DataError("full")]
    assert rig.process(job_id, "1") == [Hide(900.0, "full")]
    assert rig.states(job_id, "1") == [("IN_PROGRESS", 1)]


def test_an_outage_while_storing_one_by_one_owes_the_rest(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.settle_errors = [DataError("one of them"), None, outage()]
    assert rig.process(job_id, "1", "2") == [Done(), Hide(5.0, ANY)]
    rig.service.catch_up()
    assert rig.states(job_id, "1", "2") == [("COMPLETED", 1), ("COMPLETED", 1)]


def test_a_request_that_cannot_be_looked_up_spoils_only_itself(rig: Rig) -> None:
    job_id = rig.add_job("1", "2", "3")
    rig.database.unclaimable = {"2"}
    outcomes = rig.process(job_id, "1", "2", "3", "2")
    dead = Dead("the fake refuses an id", recorded=False)
    assert outcomes == [Done(), dead, Done(), dead]
    assert rig.states(job_id, "1", "2", "3") == [("COMPLETED", 1), ("QUEUED", 0), ("COMPLETED", 1)]


def test_requests_one_by_one_have_an_outage_each(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.database.claim_errors = [DataError("one of them"), None, outage()]
    assert rig.process(job_id, "1", "2") == [Done(), Hide(5.0, ANY)]
    assert rig.states(job_id, "1", "2") == [("COMPLETED", 1), ("QUEUED", 0)]


KINDS = ("good", "permanent", "transient", "bug", "refused", "done", "held", "unknown", "foreign", "unclaimable")


def build(kinds: list[str]) -> tuple[Rig, str]:
    """A job whose segment number n is of kind n."""
    rig = Rig()
    job_id = rig.add_job(*(str(at) for at, kind in enumerate(kinds) if kind != "unknown"), "99")
    for at, kind in enumerate(kinds):
        match kind:
            case "permanent":
                rig.graph.answers[at] = PermanentError("no such text")
            case "transient":
                rig.graph.errors[at] = TransientError("too slow")
            case "bug":
                rig.graph.errors[at] = ZeroDivisionError("bug")
            case "refused":
                rig.graph.answers[at] = "{"
            case "done":
                rig.database.set_segment(job_id, str(at), status="COMPLETED", result_json="[0]")
            case "held":
                rig.take(job_id, str(at))
            case "unclaimable":
                rig.database.unclaimable.add(str(at))
    return rig, job_id


def deal_with(rig: Rig, job_id: str, kinds: list[str], numbers: list[int]) -> list[Outcome]:
    requests = [rig.request(job_id, str(number)) for number in numbers]
    return rig.service.process(
        [
            replace(request, manifestation_id="N") if kinds[number] == "foreign" else request
            for request, number in zip(requests, numbers, strict=True)
        ]
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=10))
def test_each_ends_in_any_batch_as_it_ends_alone(kinds: list[str]) -> None:
    together, job_id = build(kinds)
    outcomes = deal_with(together, job_id, kinds, list(range(len(kinds))))
    for at, kind in enumerate(kinds):
        alone, its_job = build(kinds)
        (outcome,) = deal_with(alone, its_job, kinds, [at])
        assert type(outcomes[at]) is type(outcome)
        if kind != "unknown":
            assert together.states(job_id, str(at)) == alone.states(its_job, str(at))
            assert together.row(job_id, str(at)).result_json == alone.row(its_job, str(at)).result_json
    assert together.leases.held == set()
    assert together.gate.is_open


# Leases that are lost


def test_a_claim_lost_before_the_walk_is_not_walked(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("1", "2")
    rig.leases.lost = {"1"}
    assert rig.process(job_id, "1", "2") == [Leave("the claim is lost"), Done()]
    assert rig.graph.calls == [[2]]
    assert rig.states(job_id, "1", "2") == [("IN_PROGRESS", 1), ("COMPLETED", 1)]
    assert messages(caplog, logging.WARNING) == [
        f"The claim on segment 1 of job {job_id} is lost: another worker has it, nothing was written"
    ]


@pytest.mark.parametrize(
    "answer", ["[1]", PermanentError("no such text"), TransientError("too slow"), outage("Neo4j"), KeyError("bug")]
)
def test_a_claim_lost_during_the_walk_writes_nothing(rig: Rig, answer: str | Exception) -> None:
    job_id = rig.add_job("1", "2")
    if isinstance(answer, str | PermanentError):
        rig.graph.answers[1] = answer
    else:
        rig.graph.errors[1] = answer
    rivals: list[str] = []

    def take_over() -> None:
        if not rivals:
            rig.database.travel(1_000)
            rivals.append(rig.take(job_id, "1").token)

    rig.graph.meanwhile = take_over
    assert rig.process(job_id, "1") == [Leave("the claim is lost")]
    row = rig.row(job_id, "1")
    assert (row.status, row.claim_token, row.attempts, row.error_message) == ("IN_PROGRESS", rivals[0], 1, None)
    job = rig.database.job(job_id)
    assert (job.completed_segments, job.failed_segments) == (0, 0)
    assert rig.leases.held == set()


def test_an_abandoned_segment_that_is_claimed_by_another_is_left_alone(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    for _ in range(MAX_ATTEMPTS):
        rig.take(job_id, "1")
        rig.database.travel(1_001)

    def take_over() -> None:
        rig.database.set_segment(job_id, "1", claim_token="a rival's")

    rig.graph.meanwhile = take_over
    assert rig.process(job_id, "1", "2") == [Leave("the claim is lost"), Done()]
    assert rig.row(job_id, "1").status == "IN_PROGRESS"


def test_given_back_segments_are_free_and_uncharged(rig: Rig) -> None:
    job_id = rig.add_job("1")
    rig.service.give_back([rig.take(job_id, "1")])
    assert rig.states(job_id, "1") == [("QUEUED", 0)]
    assert rig.take(job_id, "1").attempts == 1


# Locks: what somebody has locked harms nobody else, and is not charged


def test_a_locked_job_s_segments_are_given_back_and_the_others_are_stored(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    locked, free = rig.add_job("1", "2"), rig.add_job("3")
    rig.database.locked = {locked}
    requests = [rig.request(locked, "1"), rig.request(free, "3"), rig.request(locked, "2")]
    assert rig.service.process(requests) == [Hide(5.0, "given back"), Done(), Hide(5.0, "given back")]
    assert rig.states(locked, "1", "2") == [("QUEUED", 0)] * 2
    assert rig.states(free, "3") == [("COMPLETED", 1)]
    assert len(messages(caplog, logging.WARNING)) == 1
    assert rig.gate.is_open


def test_a_row_locked_while_it_is_worked_on_is_owed_and_given_back(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.graph.meanwhile = lambda: rig.database.locked.add("1")
    assert rig.process(job_id, "1", "2") == [Hide(5.0, ANY), Hide(5.0, "given back")]
    assert rig.states(job_id, "1", "2") == [("IN_PROGRESS", 1), ("QUEUED", 0)]
    rig.database.locked.clear()
    rig.service.catch_up()
    assert rig.states(job_id, "1") == [("QUEUED", 0)]


def test_what_is_owed_beside_a_locked_row_is_given_back_and_the_probe_succeeds(rig: Rig) -> None:
    """A lock is no outage."""
    first, second = rig.add_job("1"), rig.add_job("2")
    rig.database.settle_errors = [outage()]
    requests = [rig.request(first, "1"), rig.request(second, "2")]
    assert rig.service.process(requests) == [Hide(5.0, ANY)] * 2
    rig.database.locked = {"1"}
    rig.service.catch_up()
    assert (rig.states(first, "1"), rig.states(second, "2")) == ([("IN_PROGRESS", 1)], [("QUEUED", 0)])
    rig.database.locked.clear()
    rig.service.catch_up()
    assert rig.states(first, "1") == [("QUEUED", 0)]


def test_an_outage_while_giving_back_around_a_lock_owes_on_all_that_is_left(rig: Rig) -> None:
    jobs = [rig.add_job(name) for name in ("1", "2", "3")]
    rig.database.settle_errors = [outage()]
    rig.service.process([rig.request(job, name) for job, name in zip(jobs, ("1", "2", "3"), strict=True)])
    rig.database.settle_errors = [StatementTimeoutError("a lock"), None, outage()]
    with pytest.raises(type(outage())):
        rig.service.catch_up()
    assert sorted(state for job, name in zip(jobs, "123", strict=True) for state in rig.states(job, name)) == [
        ("IN_PROGRESS", 1),
        ("IN_PROGRESS", 1),
        ("QUEUED", 0),
    ]
    rig.service.catch_up()
    assert [rig.states(job, name) for job, name in zip(jobs, "123", strict=True)] == [[("QUEUED", 0)]] * 3


@pytest.mark.parametrize("error", [DataError("a value"), StatementTimeoutError("a lock")])
def test_an_unanswered_claim_that_is_refused_in_the_end_holds_no_probe_up(rig: Rig, error: Exception) -> None:
    job_id = rig.add_job("1")
    rig.database.claim_errors = [outage(), error]
    assert rig.process(job_id, "1") == [Hide(5.0, ANY)]
    rig.service.catch_up()
    assert rig.database.claim_errors == []
    assert rig.process(job_id, "1") == [Done()]


def test_a_locked_row_is_not_claimed_and_the_others_are(rig: Rig) -> None:
    first, second = rig.add_job("1", "2", "3"), rig.add_job("4")
    rig.database.locked = {"2"}
    requests = [rig.request(first, "1"), rig.request(first, "2"), rig.request(second, "4"), rig.request(first, "3")]
    assert rig.service.process(requests) == [Done(), Hide(10.0, "held"), Done(), Done()]
    assert rig.states(first, "1", "2", "3") == [("COMPLETED", 1), ("QUEUED", 0), ("COMPLETED", 1)]
    assert rig.states(second, "4") == [("COMPLETED", 1)]


# Suspects: what may have killed its process is worked on alone


def test_a_suspect_is_claimed_alone_after_the_others_are_stored(rig: Rig) -> None:
    job_id = rig.add_job("1", "2", "3")
    rig.die_on(job_id, "2")
    rig.database.alone.clear()
    rig.database.batches.clear()
    assert rig.process(job_id, "1", "2", "3") == [Done()] * 3
    assert list(zip(rig.database.alone, rig.database.batches, strict=True)) == [
        (False, ["1", "2", "3"]),
        (True, ["2"]),
    ]
    assert rig.graph.calls == [[1, 3], [2]]
    assert rig.states(job_id, "1", "2", "3") == [("COMPLETED", 1)] * 3


def test_deaths_beside_others_are_never_charged(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    for _ in range(10 * MAX_ATTEMPTS):
        rig.die_on(job_id, "1", "2")
    assert rig.states(job_id, "1", "2") == [("IN_PROGRESS", 1)] * 2
    assert rig.process(job_id, "1", "2") == [Done()] * 2


def test_a_killer_fails_after_as_many_deaths_of_its_own(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.die_on(job_id, "1", "2")
    rig.graph.errors[1] = SystemExit()
    for deaths in range(MAX_ATTEMPTS):
        assert rig.states(job_id, "1") == [("IN_PROGRESS", max(1, deaths))]
        with pytest.raises(SystemExit):
            rig.process(job_id, "1")
        rig.database.travel(1_000)
    reason = f"abandoned {MAX_ATTEMPTS} times: its workers died on it"
    assert rig.process(job_id, "1", "2") == [Dead(reason, recorded=True), Done()]
    assert rig.states(job_id, "1", "2") == [("FAILED", MAX_ATTEMPTS), ("COMPLETED", 1)]


def test_a_suspect_waits_until_nobody_else_works(rig: Rig) -> None:
    """What a neighbour is doing could kill the process, too."""
    job_id = rig.add_job("1", "2")
    rig.die_on(job_id, "2")
    seen: list[tuple[list[int], bool]] = []
    beside = threading.Event()

    def neighbour() -> None:
        with rig.room.shared():
            beside.set()
            assert rig.until(lambda: rig.room_is_wanted())
            seen.append(([*map(len, rig.graph.calls)], False))

    thread = threading.Thread(target=neighbour)
    thread.start()
    assert beside.wait(10)
    assert rig.process(job_id, "1", "2") == [Done()] * 2
    thread.join(10)
    assert seen == [([1], False)]
    assert rig.graph.calls == [[1], [2]]


def test_a_suspect_that_had_to_wait_longer_than_a_lease_is_claimed_all_the_same(rig: Rig) -> None:
    """Its message is kept hidden by the heartbeat."""
    job_id = rig.add_job("1", "2")
    rig.die_on(job_id, "2")
    rig.graph.meanwhile = lambda: rig.until(lambda: False, seconds=0.3)
    requests = [rig.request(job_id, name) for name in ("1", "2")]
    assert rig.service.process(requests, age_seconds=LEASE_SECONDS - 0.2) == [Done()] * 2
    assert rig.database.lease_seconds[-1] > LEASE_SECONDS - 30


def test_suspects_wait_while_a_service_is_down(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.die_on(job_id, "2")
    rig.graph.errors[1] = outage("Neo4j")
    assert rig.process(job_id, "1", "2") == [Hide(5.0, "given back"), Hide(5.0, "a service is down")]
    assert rig.states(job_id, "1", "2") == [("QUEUED", 0), ("IN_PROGRESS", 1)]


# Results that are large


def test_results_are_made_and_stored_a_chunk_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.MAX_CHUNK_BYTES", 10)
    job_id = rig.add_job("1", "2", "3", "4")
    rig.graph.sizes = {1: 6, 2: 4, 3: 1, 4: 99}
    assert rig.process(job_id, "1", "2", "3", "4") == [Done()] * 4
    assert rig.database.settled == [["1", "2"], ["3"], ["4"]]


def test_results_that_are_made_at_the_same_time_share_a_budget(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tasks.MAX_CHUNK_BYTES", 10)
    job_id = rig.add_job("1", "2")
    rig.graph.sizes = {1: 700, 2: 5_000}
    reserved: list[int] = []
    rig.graph.on_encode = lambda: reserved.append(rig.budget.reserved_bytes)
    assert rig.process(job_id, "1", "2") == [Done()] * 2
    assert reserved == [700, 5_000]
    assert rig.budget.reserved_bytes == 0


def test_a_result_that_can_not_be_encoded_is_its_own_segment_s_bug(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    rig.graph.unencodable = {1}
    assert rig.process(job_id, "1", "2") == [Hide(ANY, ANY), Done()]
    assert rig.states(job_id, "1", "2") == [("RETRYING", 1), ("COMPLETED", 1)]


def test_a_job_with_more_rows_than_counted_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("1", "2", "3")
    rig.database.set_job(job_id, total_segments=2)
    assert rig.process(job_id, "1", "2", "3") == [Done()] * 3
    assert (rig.database.job(job_id).status, rig.database.job(job_id).completed_segments) == ("COMPLETED", 3)
    assert [text for text in messages(caplog, logging.ERROR) if "UPDATE root_job SET total_segments = 3" in text]
