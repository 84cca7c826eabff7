"""The service over stores in memory: an outcome for every answer to a claim, and what its rows hold then."""

import logging
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.outcomes import Dead, Done, Hide
from app.core.segments import Start
from app.errors import PermanentError
from app.service.charging import retry_seconds
from app.service.unclaimed import unknown_seconds
from tests.support.task_rig import LEASE_SECONDS, MAX_ATTEMPTS, Rig, messages


@pytest.fixture
def rig(caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO, "app.tasks")
    return Rig()


# Outcomes of answers


def test_a_segment_is_claimed_walked_and_stored(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3", "4")
    assert rig.process(job_id, "3") == [Done()]
    row = rig.row(job_id, "3")
    assert (row.status, row.result_json, row.attempts) == ("COMPLETED", "[3]", 1)
    assert rig.graph.calls == [[3]]
    assert rig.announced == []
    assert messages(caplog) == [
        "Attempting to claim segment task 3",
        "Successfully claimed segment task 3",
        f"Processing segment 3 for job {job_id}",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_the_last_segment_announces_its_job_once(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    assert rig.process(job_id, "1", "2") == [Done(), Done()]
    assert [(each.job_id, each.manifestation_id) for each in rig.announced] == [(job_id, "M")]
    assert rig.process(job_id, "1", "2") == [Done("already completed")] * 2
    assert len(rig.announced) == 1


def test_the_graph_is_asked_for_the_row_s_span_at_the_claim_s_time(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3")
    rig.database.set_segment(job_id, "3", span_start=10, span_end=20)
    rig.database.travel(100)
    assert rig.process(job_id, "3") == [Done()]
    now_us = int(rig.database.now() * 1_000_000)
    assert rig.graph.starts == [Start("M", 10, 20, now_us - 100_000_000, now_us)]
    assert messages(caplog, logging.WARNING) == [
        f"Segment 3 of job {job_id}: the message says [3, 4), the row [10, 20); the row's span counts"
    ]


def test_one_segment_by_itself(rig: Rig) -> None:
    job_id = rig.add_job("3")
    assert rig.service.process_segment_task(job_id, "M", "3", 3, 4) == Done()
    assert rig.row(job_id, "3").status == "COMPLETED"
    assert isinstance(rig.service.process_segment_task(job_id, "M", "4", 4, 5), Dead)


def test_what_another_works_on_is_hidden_until_just_after_its_lease(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.take(job_id, "3", lease_seconds=40.0)
    before = rig.row(job_id, "3")
    assert rig.process(job_id, "3") == [Hide(40.5, "held")]
    assert rig.row(job_id, "3") == before
    assert rig.graph.calls == []


def test_what_is_completed_is_deleted(rig: Rig) -> None:
    job_id = rig.add_job("3", "4")
    rig.process(job_id, "3")
    assert rig.process(job_id, "3") == [Done("already completed")]
    assert rig.database.job(job_id).completed_segments == 1
    assert len(rig.graph.calls) == 1


def test_what_has_failed_is_dead_lettered_for_the_same_reason(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.graph.answers[3] = PermanentError("no such text")
    assert rig.process(job_id, "3") == [Dead("no such text", recorded=True)]
    old = rig.request(job_id, "3", age_seconds=60)
    assert rig.service.process([old]) == [Dead("no such text", recorded=True)]
    assert rig.database.job(job_id).failed_segments == 1


def test_a_redriven_message_revives_its_segment(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.graph.answers[3] = PermanentError("no such text")
    rig.process(job_id, "3")
    rig.graph.answers.clear()
    rig.database.travel(60)
    assert rig.process(job_id, "3") == [Done()]
    assert rig.states(job_id, "3") == [("COMPLETED", 1)]


def test_a_cancelled_job_s_messages_are_deleted(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.database.set_job(job_id, cancelled_at=rig.database.now())
    assert rig.process(job_id, "3") == [Done("cancelled")]
    assert rig.states(job_id, "3") == [("QUEUED", 0)]


@pytest.mark.parametrize(
    ("age_seconds", "hidden_seconds"), [(-3, 5), (0, 5), (5, 10), (15, 20), (35, 40), (75, 80), (119, 124)]
)
def test_an_unknown_segment_waits_for_its_producer(rig: Rig, age_seconds: float, hidden_seconds: float) -> None:
    job_id = rig.add_job("3")
    request = rig.request(job_id, "4", age_seconds=age_seconds)
    (outcome,) = rig.service.process([request])
    assert outcome == Hide(ANY, "no row yet")
    assert isinstance(outcome, Hide)
    assert outcome.seconds == pytest.approx(hidden_seconds, abs=0.01)


@pytest.mark.parametrize("age_seconds", [121, 9_999])
def test_two_minutes_after_its_sending_an_unknown_segment_is_dead(
    rig: Rig, caplog: pytest.LogCaptureFixture, age_seconds: float
) -> None:
    job_id = rig.add_job("3")
    (outcome,) = rig.service.process([rig.request(job_id, "4", age_seconds=age_seconds)])
    assert outcome == Dead(f"no job {job_id} with segment '4' exists", recorded=False)
    assert messages(caplog, logging.ERROR) == [
        f"Segment 4 of job {job_id} is unknown {age_seconds} s after its message was sent"
    ]


def test_a_foreign_manifestation_is_poison(rig: Rig) -> None:
    job_id = rig.add_job("3")
    (outcome,) = rig.service.process([replace(rig.request(job_id, "3"), manifestation_id="N")])
    assert outcome == Dead("manifestation_id: the job belongs to 'M', not to 'N'", recorded=False)
    assert rig.states(job_id, "3") == [("QUEUED", 0)]


def test_what_kills_its_workers_fails_without_another_run(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3", "4")
    for _ in range(MAX_ATTEMPTS):
        rig.take(job_id, "3")
        rig.database.travel(1_001)
    reason = f"abandoned {MAX_ATTEMPTS} times: its workers died on it"
    assert rig.process(job_id, "4", "3") == [Done(), Dead(reason, recorded=True)]
    assert rig.graph.calls == [[4]]
    assert (rig.row(job_id, "3").status, rig.row(job_id, "3").error_message) == ("FAILED", reason)
    assert rig.database.job(job_id).status == "FAILED"
    assert messages(caplog, logging.ERROR) == [f"Segment 3 of job {job_id} has failed: {reason}"]


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda rig, job_id: rig.process(job_id, "3"), "is already completed, this message is a duplicate"),
        (lambda rig, job_id: rig.take(job_id, "3"), "is held, back in 1000.5 s"),
        (lambda rig, job_id: rig.database.set_job(job_id, cancelled_at=1.0), "belongs to a cancelled job"),
    ],
)
def test_each_answer_without_work_is_one_line(
    rig: Rig, caplog: pytest.LogCaptureFixture, prepare: Callable[[Rig, str], object], text: str
) -> None:
    job_id = rig.add_job("3")
    prepare(rig, job_id)
    caplog.clear()
    rig.process(job_id, "3")
    assert messages(caplog) == ["Attempting to claim segment task 3", f"Segment 3 of job {job_id} {text}"]
    assert caplog.records[-1].levelname == "INFO"


# Batches


def test_outcomes_stand_in_the_order_of_the_requests(rig: Rig) -> None:
    job_id = rig.add_job("1", "2", "3", "4")
    rig.process(job_id, "1")
    rig.take(job_id, "3")
    rig.graph.answers[4] = PermanentError("no such text")
    outcomes = rig.process(job_id, "4", "3", "2", "1", "5")
    assert [type(outcome) for outcome in outcomes] == [Dead, Hide, Done, Done, Hide]


def test_duplicates_share_a_claim_and_its_outcome(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    job_id = rig.add_job("3", "4")
    rig.graph.answers[3] = PermanentError("no such text")
    outcomes = rig.process(job_id, "3", "4", "3", "3")
    assert outcomes == [Dead("no such text", recorded=True), Done(), *[Dead("no such text", recorded=True)] * 2]
    assert (rig.database.batches, rig.graph.calls) == ([["3", "4"]], [[3, 4]])
    assert rig.states(job_id, "3", "4") == [("FAILED", 1), ("COMPLETED", 1)]
    assert messages(caplog).count("Successfully claimed segment task 3") == 1


@pytest.mark.parametrize("ages", [(0.0, 90.0), (90.0, 0.0)])
def test_the_youngest_duplicate_decides_whether_a_segment_is_revived(rig: Rig, ages: tuple[float, float]) -> None:
    job_id = rig.add_job("3")
    rig.graph.answers[3] = PermanentError("no such text")
    rig.process(job_id, "3")
    rig.graph.answers.clear()
    rig.database.travel(60)
    assert rig.service.process([rig.request(job_id, "3", age_seconds=age) for age in ages]) == [Done(), Done()]


def test_a_foreign_twin_does_not_share(rig: Rig) -> None:
    job_id = rig.add_job("3")
    twin = replace(rig.request(job_id, "3"), manifestation_id="N")
    outcomes = rig.service.process([twin, rig.request(job_id, "3"), twin])
    assert [type(outcome) for outcome in outcomes] == [Dead, Done, Dead]


def test_the_lease_counts_from_the_receive(rig: Rig) -> None:
    job_id = rig.add_job("3")
    rig.service.process([rig.request(job_id, "3")], age_seconds=10.0)
    (lease_seconds,) = rig.database.lease_seconds
    assert LEASE_SECONDS - 40.0 < lease_seconds <= LEASE_SECONDS - 10.0


def test_what_waited_in_hand_is_claimed_for_what_the_heartbeat_has_kept(rig: Rig) -> None:
    job_id = rig.add_job("3")
    assert rig.service.process([rig.request(job_id, "3")], age_seconds=LEASE_SECONDS + 100.0) == [Done()]
    assert rig.database.lease_seconds == [LEASE_SECONDS / 2]


def test_leases_are_kept_from_the_claim_to_the_end(rig: Rig) -> None:
    job_id = rig.add_job("1", "2")
    held: list[int] = []
    rig.graph.meanwhile = lambda: held.append(len(rig.leases.held))
    rig.process(job_id, "1", "2")
    assert (held, rig.leases.held) == ([2], set())


# Waits


@given(st.integers(1, 2_000), st.floats(0.0, 1.0, exclude_max=True))
def test_retries_wait_ever_longer_and_at_most_15_minutes(attempts: int, luck: float) -> None:
    longest = min(5.0 * 2.0 ** min(attempts - 1, 100), 900.0)
    wait_seconds = retry_seconds(attempts, lambda: luck)
    assert longest / 2 <= wait_seconds <= longest <= 900.0
    assert retry_seconds(attempts + 1, lambda: luck) >= wait_seconds


def test_retries_are_spread() -> None:
    assert len({retry_seconds(4) for _ in range(20)}) > 1


def test_unknown_segments_wait_5_10_20_40_seconds() -> None:
    waits, age_seconds = [], 0.0
    while age_seconds < 120:
        waits.append(unknown_seconds(age_seconds))
        age_seconds += waits[-1]
    assert waits == [5, 10, 20, 40, 80]


@given(st.floats(-1e6, 1e6))
def test_an_unknown_segment_never_spins(age_seconds: float) -> None:
    assert unknown_seconds(age_seconds) >= 5.0
