"""What is counted of the work, and told of a thread that hangs."""

import threading
from collections.abc import Sequence

import pytest

from app.caching.memory import MemoryTier
from app.caching.shared import SharedTier
from app.caching.tiers import PageCache
from app.core.outcomes import Done, Leave
from app.core.segments import Claimed
from app.errors import PermanentError, QueryTimeoutError, StatementTimeoutError
from app.pages.reading import Reading
from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop
from app.worker.counts import BUCKETS_SECONDS, Counts, Histogram
from app.worker.health import Checkup
from tests.support.caches import FakeStore, PageMaker
from tests.support.task_rig import Rig, outage

KEY = b"the key"


@pytest.fixture
def rig() -> Rig:
    return Rig()


def batches(rig: Rig) -> dict[str, int]:
    """How many took each step; none that took none."""
    return {step: number for step, each in rig.counts.read().steps.items() if (number := sum(each.counts))}


def test_a_batch_is_timed_by_step_and_its_segments_counted_by_how_they_ended(rig: Rig) -> None:
    job = rig.add_job("1", "2", "3", "4")
    rig.graph.answers[2] = PermanentError("no such text")
    rig.leases.lost = {"3"}
    rig.process(job, "1", "2", "3")
    assert rig.counts.read().segments == {"completed": 1, "failed": 1, "lost": 1}
    assert batches(rig) == {"claim": 1, "walk": 1, "settle": 1}
    rig.graph.errors[4] = QueryTimeoutError("too slow")
    rig.process(job, "4")
    assert rig.counts.read().segments["postponed"] == 1
    assert batches(rig) == {"claim": 2, "walk": 2, "settle": 2}


def test_an_ending_that_is_owed_counts_once_and_when_it_is_written(rig: Rig) -> None:
    job = rig.add_job("1")
    rig.database.lost_settle_replies = [outage()]
    rig.process(job, "1")
    assert rig.counts.read().segments == {}
    rig.service.catch_up()
    assert rig.counts.read().segments == {"completed": 1}


def test_a_claim_that_is_taken_over_during_the_walk_is_lost_and_not_completed(rig: Rig) -> None:
    job = rig.add_job("1", "2")

    def take_over() -> None:
        rig.database.travel(1_000)
        rig.take(job, "1")

    rig.graph.meanwhile = take_over
    assert rig.process(job, "1", "2") == [Leave("the claim is lost"), Done()]
    assert rig.counts.read().segments == {"completed": 1, "lost": 1}


def test_what_is_given_back_counts_by_every_road(rig: Rig) -> None:
    job = rig.add_job("1", "2")
    rig.graph.errors[1] = outage("Neo4j")
    rig.process(job, "1")
    claims: Sequence[Claimed] = [rig.take(job, "2")]
    rig.service.give_back(claims)
    assert rig.counts.read().segments == {"given_back": 2}


def test_what_is_owed_and_then_locked_counts_as_given_back(rig: Rig) -> None:
    job = rig.add_job("1")
    rig.database.settle_errors = [outage(), StatementTimeoutError("locked")]
    rig.process(job, "1")
    rig.service.catch_up()
    assert rig.counts.read().segments == {"given_back": 1}


def test_a_settling_that_fails_counts_nothing(rig: Rig) -> None:
    job = rig.add_job("1")
    rig.database.settle_errors = [StatementTimeoutError("locked"), StatementTimeoutError("locked")]
    rig.process(job, "1")
    assert rig.counts.read().segments == {}


def test_a_bucket_includes_its_bound_and_the_last_takes_all_that_is_longer() -> None:
    histogram = Histogram()
    for seconds in (0.0, BUCKETS_SECONDS[0], BUCKETS_SECONDS[1], BUCKETS_SECONDS[-1] + 1):
        histogram.add(seconds)
    assert histogram.counts[:3] == [2, 1, 0]
    assert histogram.counts[-1] == 1
    assert sum(histogram.counts) == 4


def test_a_step_that_fails_took_its_time_and_a_call_that_fails_has_failed() -> None:
    counts = Counts()
    with pytest.raises(ValueError, match="broken"), counts.step("walk"), counts.call("Neo4j"):
        raise ValueError("broken")
    with counts.call("Neo4j"):
        pass
    assert sum(counts.read().steps["walk"].counts) == 1
    assert counts.read().calls == {("Neo4j", False): 1, ("Neo4j", True): 1}


def test_what_was_read_stays_as_it_was() -> None:
    counts = Counts()
    read = counts.read()
    counts.took("claim", 1.0)
    counts.pages("graph", 2)
    assert sum(read.steps["claim"].counts) == 0
    assert read.pages == {}


def test_a_page_counts_where_it_was_found() -> None:
    store = FakeStore()
    counts = [Counts(), Counts()]

    def cache(each: Counts) -> PageCache:
        shared = SharedTier(store, KEY, 100, store.clock, meter=each)
        return PageCache(
            PageMaker(), MemoryTier(10**9, store.clock), shared, clock=store.clock, sleep=store.clock.sleep, meter=each
        )

    first, second = map(cache, counts)
    first.get({"a": 0, "b": 0}, Reading(9))
    first.get({"a": 0}, Reading(9))
    second.get({"a": 0, "c": 0}, Reading(9))
    assert counts[0].read().pages == {"graph": 2, "memory": 1}
    assert counts[1].read().pages == {"shared": 1, "graph": 1}
    states = [second.is_shared_up]
    assert counts[1].read().calls["Dragonfly", True] >= 2
    store.error = "gone"
    second.get({"d": 0}, Reading(9))
    states.append(second.is_shared_up)
    assert states == [True, False]
    assert counts[1].read().calls["Dragonfly", False] == 1, "it is left alone then"
    assert PageCache(PageMaker(), MemoryTier(1)).is_shared_up is None


class Patient:
    """A checkup whose clock is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stop = Stop()
        self.gate = Gate(clock=lambda: self.now)
        self.progress = Progress(lambda: self.now)
        self.checkup = Checkup(
            self.gate, self.progress, self.stop, ("SQS", "Neo4j"), stall_seconds=600, clock=lambda: self.now
        )


def test_a_worker_lives_until_a_thread_hangs() -> None:
    patient = Patient()
    assert patient.checkup.live() == (True, {"live": True, "hanging": []})
    patient.progress.watch(threading.Thread(name="lane-1"))
    patient.progress.watch(threading.Thread(name="lane-2"))
    patient.now = 601
    patient.progress.watch(threading.Thread(name="lane-3"))
    assert patient.checkup.live() == (False, {"live": False, "hanging": ["lane-1", "lane-2"]})


def test_a_worker_is_ready_from_its_start_to_its_stop_but_for_outages() -> None:
    patient = Patient()
    patient.now = 5
    assert patient.checkup.down_seconds() == {"SQS": 5, "Neo4j": 5}
    patient.checkup.saw("SQS")
    is_ready, answer = patient.checkup.ready()
    assert (is_ready, answer["state"], answer["dependencies"]["SQS"]) == (False, "starting", {"up": True})
    patient.checkup.saw("Neo4j")
    assert patient.checkup.ready()[0]
    patient.gate.close("SQS", "gone")
    patient.now = 8
    is_ready, answer = patient.checkup.ready()
    assert (is_ready, answer["state"]) == (False, "running")
    assert answer["dependencies"]["SQS"]["down_seconds"] == 3
    assert answer["dependencies"]["Neo4j"] == {"up": True}
    patient.gate.reopen("SQS")
    assert patient.checkup.ready()[0]
    patient.stop.set()
    assert patient.checkup.ready()[1]["state"] == "stopping"
    assert not patient.checkup.ready()[0]
