"""The page cache: tiers, freshness, and one load for all who miss at once."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.caching import tiers as cache_module
from app.caching.memory import MemoryTier
from app.caching.shared import MARKER_MS, SharedTier
from app.caching.tiers import TOO_SLOW_SECONDS, PageCache, _Flight, _Load
from app.core.segments import Start
from app.errors import OutageError, QueryTimeoutError, TransientError
from app.pages.page import Page, size_bytes
from app.pages.reading import Reading
from app.pages.walk import walk_together
from app.threads.background import Background
from bench.reference import reference_walk
from tests.support.answers import decoded, example_files, read_example
from tests.support.caches import FakeStore, ManualClock, PageMaker
from tests.support.graphs import MemoryGraph, pair_of, unhurried
from tests.support.worker import wait_until

ROOMY = 10**9
KEY = b"the key"
WAIT_SECONDS = 30


def worker(
    loader: PageMaker | MemoryGraph,
    store: FakeStore | None = None,
    memory_bytes: int = ROOMY,
    run_in_background: Callable[[Callable[[], None]], None] = lambda work: work(),
) -> PageCache:
    """A worker's cache; workers that are given one store share it."""
    clock = store.clock if store else ManualClock()
    shared = SharedTier(store, KEY, 100, clock) if store else None
    return PageCache(
        loader,
        MemoryTier(memory_bytes, clock),
        shared,
        clock=clock,
        sleep=clock.sleep,
        run_in_background=run_in_background,
    )


def test_a_page_is_loaded_once_and_then_comes_from_memory() -> None:
    loader, store = PageMaker(), FakeStore()
    cache = worker(loader, store)
    first = cache.get({"a": 0, "b": 0}, Reading(9))
    calls = store.calls
    assert cache.get({"a": 0, "b": 9}, Reading(10)) == first
    assert loader.loads == [("a", "b")]
    assert store.calls == calls


def test_another_worker_finds_the_page_in_the_shared_cache() -> None:
    loader, store = PageMaker(), FakeStore()
    first = worker(loader, store).get({"a": 0}, Reading(9))
    assert worker(loader, store).get({"a": 9}, Reading(10)) == first
    assert loader.loads == [("a",)]


def test_nobody_waits_until_a_page_is_shared() -> None:
    loader, store, later = PageMaker(), FakeStore(), list[Callable[[], None]]()
    cache = worker(loader, store, run_in_background=later.append)
    assert set(cache.get({"a": 0}, Reading(9))) == {"a"}
    assert not [key for key in store.values if ":page:" in key]
    (share,) = later
    share()
    assert set(worker(loader, store).get({"a": 0}, Reading(9))) == {"a"}
    assert loader.loads == [("a",)]


def test_a_page_that_can_not_be_shared_is_answered_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    shared = Broken(FakeStore(), KEY, 100)
    cache = PageCache(PageMaker(), MemoryTier(ROOMY), shared, run_in_background=Background("sharing pages"))
    assert set(cache.get({"a": 0}, Reading(9))) == {"a"}
    assert shared.tried.wait(WAIT_SECONDS)
    wait_until(lambda: "sharing pages failed" in caplog.text, "the failure in the log")


class Broken(SharedTier):
    """Fails to share, and not because the store is down."""

    tried = threading.Event()

    def put(self, pages: Iterable[Page]) -> None:
        self.tried.set()
        raise ValueError("a bug")


def test_only_what_is_missing_is_loaded_in_one_call() -> None:
    loader = PageMaker()
    cache = worker(loader)
    cache.get({"b": 0}, Reading(1))
    assert set(cache.get({"a": 0, "b": 0, "c": 0}, Reading(2))) == {"a", "b", "c"}
    assert loader.loads == [("b",), ("a", "c")]


def test_a_page_of_the_future_is_loaded_instead_and_nothing_of_it_is_kept() -> None:
    """Made by one who knows the key, or beside a PostgreSQL whose clock is ahead."""
    loader, store = PageMaker(), FakeStore()
    SharedTier(store, KEY, 100, store.clock).put([Page("a", 2**60, exists=True)])
    cache = worker(loader, store)
    assert cache.get({"a": 5}, Reading(9)) == {"a": loader.page("a", 9)}
    store.values.clear()
    assert cache.get({"a": 2**50}, Reading(2**50 + 1)) == {"a": loader.page("a", 2**50 + 1)}
    assert loader.loads == [("a",)] * 2


def test_a_missing_manifestation_is_a_value() -> None:
    loader, store = PageMaker(exists=False), FakeStore()
    cache = worker(loader, store)
    assert not cache.get({"a": 0}, Reading(1))["a"].exists
    assert not cache.get({"a": 0}, Reading(2))["a"].exists
    assert not worker(loader, store).get({"a": 0}, Reading(2))["a"].exists
    assert loader.loads == [("a",)]
    store.clock.now += 5
    cache.get({"a": 0}, Reading(3))
    assert len(loader.loads) == 2


@unhurried
@given(st.data())
def test_no_worker_ever_gets_a_page_older_than_it_asks_for(data: st.DataObject) -> None:
    """Jobs are made and claimed at any time on one clock; what they get was read since they were made."""
    loader, store = PageMaker(), FakeStore()
    workers = [worker(loader, store), worker(loader, store, memory_bytes=3000), worker(loader, None)]
    now = 0
    for _ in range(data.draw(st.integers(1, 15))):
        now += data.draw(st.integers(0, 3))
        needs = data.draw(st.dictionaries(st.sampled_from("abc"), st.integers(0, now), min_size=1))
        chosen = data.draw(st.sampled_from(workers))
        if data.draw(st.booleans()):
            store.error = data.draw(st.sampled_from(["", "gone"]))
        store.clock.now += data.draw(st.sampled_from([0.0, 1.0, 20.0]))
        pages = chosen.get(needs, Reading(now))
        assert set(pages) == set(needs)
        assert all(needs[name] <= page.read_at_us <= now for name, page in pages.items())


def test_a_need_after_the_claim_is_met_by_what_was_read_for_it() -> None:
    """Nothing can be fresh enough for a time in the future: it must not be asked for without end."""
    loader = PageMaker()
    cache = worker(loader, FakeStore())
    assert cache.get({"a": 10}, Reading(5))["a"].read_at_us == 5
    assert cache.get({"a": 10}, Reading(6))["a"].read_at_us == 6


def test_a_change_in_the_graph_is_seen_by_the_next_job_with_a_warm_cache() -> None:
    family, questions = read_example(example_files()[-1])
    graph = MemoryGraph(family)
    cache = worker(graph, FakeStore())

    def answers(made_at: int) -> list[object]:
        starts = [Start(row.manifestation_id, row.start, row.end, made_at, made_at + 1) for row in questions]
        return [*map(decoded, walk_together(starts, cache))]

    before = answers(1)
    graph.family = family.__class__.from_graph({**family.to_graph(), "aligned_segments": []})
    assert answers(1) == before
    assert all(answer == [] for answer in answers(3))


@pytest.mark.parametrize("memory_bytes", [0, 2_000, 20_000])
def test_a_family_larger_than_the_memory_is_answered_all_the_same(memory_bytes: int) -> None:
    family, questions = read_example(example_files()[2])
    graph = MemoryGraph(family)
    cache = worker(graph, FakeStore(), memory_bytes)
    for row in questions[:20]:
        (answer,) = walk_together([Start(row.manifestation_id, row.start, row.end, 0, 1)], cache)
        assert decoded(answer) == reference_walk(family, row.manifestation_id, row.start, row.end)


class GatedLoader(PageMaker):
    """Holds each load of "a" until it is let through, so that others arrive meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def load_pages(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        if "a" in needs:
            self.entered.release()
            assert self.gate.acquire(timeout=WAIT_SECONDS)
        if self.error:
            raise self.error
        return super().load_pages(needs, reading)


class SeenCache(PageCache):
    """Tells when a thread is about to wait for another's flight."""

    def __init__(self, loader: PageMaker) -> None:
        super().__init__(loader, MemoryTier(ROOMY))
        self.waiting = threading.Semaphore(0)

    def _await(self, flight: _Flight, reading: Reading, overtaken: set[_Load]) -> Page | None:
        self.waiting.release()
        return super()._await(flight, reading, overtaken)


def run_meanwhile(
    loader: GatedLoader, cache: SeenCache, leader: Callable[[], object], *others: Callable[[], object]
) -> list[object]:
    """`leader` is in the middle of loading when the others come and wait; then all is let through."""
    with ThreadPoolExecutor(1 + len(others)) as pool:
        results = [pool.submit(leader)]
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        results += [pool.submit(other) for other in others]
        for _ in others:
            assert cache.waiting.acquire(timeout=WAIT_SECONDS)
        loader.gate.release(100)
        return [result.exception(WAIT_SECONDS) or result.result() for result in results]


def test_threads_that_miss_at_once_load_once() -> None:
    loader = GatedLoader()
    cache = SeenCache(loader)
    get = lambda: cache.get({"a": 1}, Reading(5))  # noqa: E731
    results = run_meanwhile(loader, cache, get, *[get] * 7)
    assert results == [{"a": loader.page("a", 5)}] * 8
    assert loader.loads == [("a",)]


def test_a_thread_that_waits_loads_what_nobody_is_loading() -> None:
    loader = GatedLoader()
    cache = SeenCache(loader)
    results = run_meanwhile(
        loader, cache, lambda: cache.get({"a": 0}, Reading(5)), lambda: cache.get({"a": 0, "b": 0}, Reading(6))
    )
    assert results[1] == {"a": loader.page("a", 5), "b": loader.page("b", 6)}
    assert sorted(loader.loads) == [("a",), ("b",)]


def test_a_waiter_that_needs_a_newer_page_loads_it_itself() -> None:
    loader = GatedLoader()
    cache = SeenCache(loader)
    results = run_meanwhile(
        loader, cache, lambda: cache.get({"a": 0}, Reading(5)), lambda: cache.get({"a": 6}, Reading(7))
    )
    assert results == [{"a": loader.page("a", 5)}, {"a": loader.page("a", 7)}]


def test_an_outage_reaches_all_who_wait_at_once() -> None:
    loader = GatedLoader()
    loader.error = OutageError("Neo4j", "refused")
    cache = SeenCache(loader)
    get = lambda: cache.get({"a": 1}, Reading(5))  # noqa: E731
    results = run_meanwhile(loader, cache, get, get, get)
    assert [type(result) for result in results] == [OutageError] * 3
    assert not loader.entered.acquire(blocking=False), "one failure is enough"
    loader.error = None
    assert cache.get({"a": 1}, Reading(5)) == {"a": loader.page("a", 5)}


def test_a_failed_query_of_one_thread_is_tried_again_by_the_next() -> None:
    loader = GatedLoader()
    loader.error = TransientError("slow")
    cache = SeenCache(loader)
    get = lambda: cache.get({"a": 1}, Reading(5))  # noqa: E731
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(get)
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        waiter = pool.submit(get)
        assert cache.waiting.acquire(timeout=WAIT_SECONDS)
        loader.gate.release()
        assert isinstance(leader.exception(WAIT_SECONDS), TransientError)
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        loader.error = None
        loader.gate.release()
        assert waiter.result(WAIT_SECONDS) == {"a": loader.page("a", 5)}


class PagePerPart(PageMaker):
    """Gives page after page; those in `slow` take too long, at "stop" it is held up until it is let through."""

    def __init__(self, *slow: str, error: Exception | None = None) -> None:
        super().__init__()
        self.slow = set(slow)
        self.error = error
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
        self.loads.append(tuple(needs))
        for name in needs:
            if name == "stop":
                self.entered.release()
                assert self.gate.acquire(timeout=WAIT_SECONDS)
                if self.error:
                    raise self.error
            if name not in self.slow:
                yield {name: self.page(name, reading.read_at_us)}
        if blamed := self.slow.intersection(needs):
            raise QueryTimeoutError("too slow", blamed)


def needs(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), 1)


def test_each_part_of_a_load_is_kept_though_a_later_one_fails() -> None:
    loader, store = PagePerPart(error=TransientError("slow")), FakeStore()
    loader.gate.release()
    with pytest.raises(TransientError):
        worker(loader, store).get(needs("a b stop c"), Reading(5))
    other = worker(loader, store)
    loader.error = None
    loader.gate.release()
    assert set(other.get(needs("a b stop c"), Reading(6))) == {"a", "b", "stop", "c"}
    assert loader.loads == [("a", "b", "stop", "c"), ("stop", "c")], "a second worker begins where the first one ended"
    cache = worker(PagePerPart(error=OutageError("Neo4j", "gone")))
    assert isinstance(cache._loader, PagePerPart)
    cache._loader.gate.release()
    with pytest.raises(OutageError):
        cache.get(needs("a b stop c"), Reading(5))
    assert set(cache.get(needs("a b"), Reading(6))) == {"a", "b"}
    assert len(cache._loader.loads) == 1


def test_who_waits_for_a_page_that_came_has_it_though_the_rest_of_the_load_fails() -> None:
    loader = PagePerPart(error=OutageError("Neo4j", "gone"))
    cache = SeenCache(loader)
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(cache.get, needs("a stop b"), Reading(5))
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        assert pool.submit(cache.get, needs("a"), Reading(5)).result(WAIT_SECONDS) == {"a": loader.page("a", 5)}
        waiter = pool.submit(cache.get, needs("b"), Reading(5))
        assert cache.waiting.acquire(timeout=WAIT_SECONDS)
        loader.gate.release()
        assert isinstance(leader.exception(WAIT_SECONDS), OutageError)
        assert isinstance(waiter.exception(WAIT_SECONDS), OutageError)
    assert loader.loads == [("a", "stop", "b")]


def test_who_waits_for_a_page_that_took_too_long_shares_that_and_the_others_go_on() -> None:
    loader = PagePerPart("b")
    cache = SeenCache(loader)
    with ThreadPoolExecutor(9) as pool:
        leader = pool.submit(cache.get, needs("a stop b c"), Reading(5))
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        same = [pool.submit(cache.get, needs("b"), Reading(5)) for _ in range(7)]
        other = pool.submit(cache.get, needs("c"), Reading(5))
        for _ in range(8):
            assert cache.waiting.acquire(timeout=WAIT_SECONDS)
        loader.gate.release()
        assert [type(each.exception(WAIT_SECONDS)) for each in (leader, *same)] == [QueryTimeoutError] * 8
        assert other.result(WAIT_SECONDS) == {"c": loader.page("c", 5)}
    assert loader.loads == [("a", "stop", "b", "c")]


def test_who_waits_for_a_page_that_was_not_to_blame_loads_it() -> None:
    loader = PagePerPart(error=QueryTimeoutError("out of patience", ["stop"]))
    cache = SeenCache(loader)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(cache.get, needs("stop b"), Reading(5))
        assert loader.entered.acquire(timeout=WAIT_SECONDS)
        waiter = pool.submit(cache.get, needs("b"), Reading(6))
        assert cache.waiting.acquire(timeout=WAIT_SECONDS)
        loader.gate.release()
        assert isinstance(leader.exception(WAIT_SECONDS), QueryTimeoutError)
        assert waiter.result(WAIT_SECONDS) == {"b": loader.page("b", 6)}


def test_a_page_that_took_too_long_is_left_alone_for_a_while_and_costs_nobody_else() -> None:
    loader, clock = PagePerPart("b"), ManualClock()
    cache = PageCache(loader, MemoryTier(ROOMY, clock), clock=clock)
    with pytest.raises(QueryTimeoutError):
        cache.get(needs("a b c"), Reading(5))
    for _ in range(2):
        with pytest.raises(QueryTimeoutError, match="'b' took too long to read just now"):
            cache.get(needs("a b d"), Reading(6))
    assert set(cache.get(needs("a c d"), Reading(6))) == {"a", "c", "d"}
    assert loader.loads == [("a", "b", "c"), ("d",)]
    clock.now += TOO_SLOW_SECONDS
    loader.slow.clear()
    assert set(cache.get(needs("a b"), Reading(7))) == {"a", "b"}


def test_who_waits_for_another_thread_s_load_comes_further_as_that_does_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lane that waits for one that hangs must look as hung as that one."""
    marks: list[str] = []
    looks: list[float] = []
    go_on = threading.Semaphore(0)

    def look(futures: Sequence[Future[Page]], seconds: float) -> object:
        looks.append(seconds)
        return wait(futures, seconds / 50)

    monkeypatch.setattr(cache_module, "wait", look)

    class StepByStep(GatedLoader):
        """Tells that it came further each time that it is let go on."""

        def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
            self.entered.release()
            for _ in range(3):
                assert go_on.acquire(timeout=WAIT_SECONDS)
                reading.came_further()
            yield {name: self.page(name, reading.read_at_us) for name in needs}

    loader = StepByStep()
    cache = PageCache(loader, MemoryTier(ROOMY))
    reading = Reading(5, came_further=lambda: marks.append(threading.current_thread().name))
    get = lambda: cache.get({"a": 1}, reading)  # noqa: E731
    leader, waiter = threading.Thread(target=get, name="leader"), threading.Thread(target=get, name="waiter")
    leader.start()
    assert loader.entered.acquire(timeout=WAIT_SECONDS)
    waiter.start()
    wait_until(lambda: marks.count("waiter") == 1, "the waiter to ask")
    for steps in (1, 2):
        go_on.release()
        wait_until(lambda: marks.count("waiter") == 1 + steps, "the waiter to come further")  # noqa: B023
    assert marks.count("leader") == 1 + 2
    before = len(looks)
    wait_until(lambda: len(looks) >= before + 5, "the waiter to look again and again")
    assert marks.count("waiter") == 1 + 2, "it hangs as its leader does"
    go_on.release()
    for thread in (leader, waiter):
        thread.join(WAIT_SECONDS)
    assert marks.count("leader") == 1 + 3 + 1, "its own level, each step, and the part that came"


def test_reading_ahead_ends_when_pages_are_larger_than_they_seemed() -> None:
    """All that was read at once is held until the last of it is there, whatever the memory for pages may hold."""

    class OnePagePerPart(PageMaker):
        def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
            for name in needs:
                yield self.load_pages({name: needs[name]}, reading)

    loader = OnePagePerPart(segments=100)
    memory = MemoryTier(2 * 10 * size_bytes(loader.page("a", 5)))
    cache = PageCache(loader, memory)
    root = Page("root", 5, True, tuple(pair_of(f"t{at:02}", [(0, 5, 0, 5)]) for at in range(40)))
    cache.get({"a": 1}, Reading(5, [root], job_segments=100))
    wait_until(lambda: not cache._ahead._beside._busy.locked(), "it to end")
    assert 5 < len(loader.loads) < 15
    (last,) = loader.loads[-1]
    cache.get({last: 1, "t39": 1}, Reading(6))
    assert loader.loads[-1] == ("t39",), "the others are not in flight any more"


def test_what_is_read_ahead_is_overtaken_by_who_needs_a_page_behind_one_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "LOOK_SECONDS", 0.01)
    loader, memory = PagePerPart(), MemoryTier(ROOMY)
    cache = PageCache(loader, memory)
    root = Page("root", 5, True, (pair_of("stop", [(0, 5, 0, 5)]), pair_of("b", [(0, 5, 0, 5)])))
    cache.get({"a": 1}, Reading(5, [root], job_segments=10))
    assert loader.entered.acquire(timeout=WAIT_SECONDS)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(cache.get, {"b": 1}, Reading(6))
        overtook = bool(wait([asked], timeout=WAIT_SECONDS / 2).done)
        loader.gate.release()
    assert overtook
    assert set(asked.result()) == {"b"}
    assert sorted(loader.loads) == [("a",), ("b",), ("stop", "b")]
    wait_until(lambda: len(memory.get({"stop": 1, "b": 6})) == 2, "the rest to land, and what overtook it to stay")
    assert set(cache.get({"stop": 1, "b": 1}, Reading(7))) == {"stop", "b"}
    assert len(loader.loads) == 3, "nothing is in flight any more"


def test_a_page_that_lands_between_missing_it_and_taking_off_is_not_loaded_again() -> None:
    class MemoryWithARival(MemoryTier):
        """The first to miss is overtaken by another thread before it can say that it will load."""

        rival: Callable[[], object] | None = None

        def get(self, needs: Mapping[str, int]) -> dict[str, Page]:
            found = super().get(needs)
            if self.rival is not None:
                rival, self.rival = self.rival, None
                rival()
            return found

    loader, memory = PageMaker(), MemoryWithARival(ROOMY)
    cache = PageCache(loader, memory)
    memory.rival = lambda: cache.get({"a": 0}, Reading(4))
    assert cache.get({"a": 0}, Reading(5)) == {"a": loader.page("a", 4)}
    assert loader.loads == [("a",)]


def test_threads_that_each_lead_what_the_other_wants_do_not_block_each_other() -> None:
    loader = PageMaker()
    both = threading.Barrier(8)
    cache = worker(loader)

    def get(names: str) -> Mapping[str, Page]:
        both.wait(WAIT_SECONDS)
        return cache.get(dict.fromkeys(names, 0), Reading(1))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(get, ["abc", "cba", "bcd", "dab"] * 2, timeout=WAIT_SECONDS))
    assert [set(pages) for pages in results] == [set("abc"), set("abc"), set("bcd"), set("abd")] * 2
    assert sorted(name for load in loader.loads for name in load) == list("abcd")


class OtherWorkerLoads(PageMaker):
    """While this worker loads its part, another one puts the page that it had announced."""

    def __init__(self, other: SharedTier) -> None:
        super().__init__()
        self.other = other

    def load_pages(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        self.other.put([self.page("a", 4)])
        return super().load_pages(needs, reading)


def test_a_page_that_another_worker_is_loading_is_waited_for() -> None:
    store = FakeStore()
    other = SharedTier(store, KEY, 100, store.clock)
    other.announce(["a"], read_at_us=4)
    loader = OtherWorkerLoads(other)
    assert worker(loader, store).get({"a": 3, "b": 3}, Reading(5)) == {
        "a": loader.page("a", 4),
        "b": loader.page("b", 5),
    }
    assert loader.loads == [("b",)]


def test_a_worker_that_died_while_loading_delays_the_others_for_two_seconds_at_most() -> None:
    store, loader = FakeStore(), PageMaker()
    SharedTier(store, KEY, 100, store.clock).announce(["a"], read_at_us=4)
    assert worker(loader, store).get({"a": 3}, Reading(5)) == {"a": loader.page("a", 5)}
    assert 0 < sum(store.clock.slept) <= MARKER_MS / 1000


def test_a_load_that_is_not_fresh_enough_is_not_waited_for() -> None:
    store, loader = FakeStore(), PageMaker()
    SharedTier(store, KEY, 100, store.clock).announce(["a"], read_at_us=4)
    assert worker(loader, store).get({"a": 5}, Reading(6)) == {"a": loader.page("a", 6)}
    assert store.clock.slept == []
