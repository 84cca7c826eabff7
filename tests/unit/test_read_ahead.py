"""What a large job will need is read before its walks ask: all of it, never more than pays or has room."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from app.caching.ahead import ReadAhead
from app.caching.memory import MemoryTier
from app.caching.tiers import PageCache
from app.core.segments import Start
from app.errors import OutageError
from app.pages.page import Page, guessed_bytes
from app.pages.reading import Reading
from app.pages.walk import walk_together
from app.threads.room import Room
from bench.generate import generate_family
from tests.support.caches import PageMaker
from tests.support.graphs import MemoryGraph
from tests.support.worker import wait_until

FAMILY = generate_family(texts=60, segments_per_text=8, aligned_per_pair=6, reach=5)
ROOT, *OTHERS = FAMILY.manifestations
ROOMY = 10**8


class Reader:
    """The graph behind a memory, and a reading ahead whose work is done when the test says so."""

    def __init__(self, memory_bytes: int = ROOMY) -> None:
        self.graph = MemoryGraph(FAMILY)
        self.memory = MemoryTier(memory_bytes)
        self.works: list[Callable[[], None]] = []
        self.ahead = ReadAhead(self.get, self.memory, enter=self.enter, start=self.works.append)
        self.failure: Exception | None = None
        self.guests = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        self.guests += 1
        try:
            yield
        finally:
            self.guests -= 1

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        assert self.guests == 1
        if self.failure:
            raise self.failure
        pages = self.graph.get(needs, reading)
        self.memory.put(pages.values())
        return pages

    def begin(self, job_segments: int, read_at_us: int = 7) -> None:
        at_hand = [*self.graph.load_pages({ROOT: 0}, Reading(read_at_us)).values()]
        self.graph.loads.clear()
        self.ahead.begin(5, Reading(read_at_us, at_hand, job_segments=job_segments))

    @property
    def read(self) -> list[str]:
        return [name for names in self.graph.loads for name in names]


def test_all_that_pages_lead_to_is_read_once_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.caching.ahead.MAX_PAGES_AT_ONCE", 20)
    reader = Reader()
    reader.begin(len(OTHERS) + 1)
    assert not reader.read, "nobody waits for it"
    reader.works.pop()()
    assert sorted(reader.read) == sorted(OTHERS)
    assert max(map(len, reader.graph.loads)) == 20
    assert set(reader.memory.get(dict.fromkeys(OTHERS, 5))) == set(OTHERS)


@pytest.mark.parametrize("job_segments", [0, 1, 10])
def test_a_job_has_no_more_pages_read_than_it_has_segments(job_segments: int) -> None:
    reader = Reader()
    reader.begin(job_segments)
    for work in reader.works:
        work()
    assert len(reader.read) == max(0, job_segments - 1), "the root's page is at hand"


def test_half_of_the_memory_is_left_to_what_walks_ask_for() -> None:
    (root,) = MemoryGraph(FAMILY).load_pages({ROOT: 0}, Reading(7)).values()
    reader = Reader(2 * 20 * guessed_bytes(root.pairs[0]))
    reader.begin(10**6)
    reader.works.pop()()
    assert 0 < len(reader.read) <= 20


@pytest.mark.parametrize(("read_at_us", "are_in_the_way"), [(4, False), (5, True)])
def test_a_memory_that_is_full_of_what_the_job_can_not_use_is_read_into(read_at_us: int, are_in_the_way: bool) -> None:
    reader = Reader()
    reader.memory = MemoryTier(10**5)
    reader.ahead = ReadAhead(reader.get, reader.memory, enter=reader.enter, start=reader.works.append)
    reader.memory.put([PageMaker().page(f"another {at}", read_at_us) for at in range(200)])
    assert reader.memory.held_bytes > reader.memory.limit_bytes // 2
    reader.begin(10)
    reader.works.pop()()
    assert bool(reader.read) != are_in_the_way


def test_only_one_family_is_read_ahead_at_a_time_and_then_the_next() -> None:
    reader = Reader()
    reader.begin(10)
    reader.begin(10)
    assert len(reader.works) == 1
    reader.works.pop()()
    reader.begin(10)
    assert len(reader.works) == 1


def test_a_failure_is_left_to_who_needs_the_page(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.failure = OutageError("Neo4j", "it is down")
    reader.begin(10)
    with caplog.at_level(logging.INFO):
        reader.works.pop()()
    assert not caplog.records
    reader.begin(10)
    assert reader.works, "the next walk may try again"


def test_a_bug_is_in_the_log_and_the_next_family_s_turn_comes(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.failure = RuntimeError("can't start new thread")
    reader.begin(10)
    reader.works.pop()()
    assert "Reading ahead met a bug" in caplog.text
    reader.begin(10)
    assert reader.works


def test_a_system_without_a_thread_to_give_goes_on() -> None:
    threads = 0

    def start(work: Callable[[], None]) -> None:
        if not threads:
            raise RuntimeError("can't start new thread")
        reader.works.append(work)

    reader = Reader()
    reader.ahead = ReadAhead(reader.get, reader.memory, start=start)
    reader.begin(10)
    assert not reader.works
    threads = 1
    reader.begin(10)
    assert reader.works


def test_nothing_is_read_ahead_beside_a_suspect() -> None:
    """Nor does a suspect begin while something is: then a death would be charged to it that was none of its doing."""
    graph, memory, room = MemoryGraph(FAMILY), MemoryTier(ROOMY), Room()
    starts = [Start(ROOT, 0, 1, 0, 1, job_segments=1_000)] * 2

    def is_all_read() -> bool:
        return len(memory.get(dict.fromkeys(FAMILY.manifestations, 1))) == len(OTHERS) + 1

    def is_waiting() -> bool:
        return bool(room._changed._waiters)  # type: ignore[attr-defined]

    with room.alone():
        walk_together(starts, PageCache(graph, memory, enter=room.shared))
        wait_until(lambda: is_waiting() or is_all_read(), "the reading to wait for the room")
        assert not is_all_read()
    wait_until(is_all_read, "all pages")


def test_a_small_job_has_no_family_read_for_a_large_one_s_sake_that_shares_its_batch() -> None:
    graph = Asked()
    walk_together([Start(ROOT, 0, 1, 0, 1, job_segments=many) for many in (3, 1_000)], graph)
    assert {reading.job_segments for reading in graph.readings} == {3}


class Asked(MemoryGraph):
    """Remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__(FAMILY)
        self.readings: list[Reading] = []

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        self.readings.append(reading)
        return super().get(needs, reading)


@pytest.mark.parametrize(("segments", "begins"), [(2, True), (1, False)])
def test_a_batch_of_a_large_job_begins_it_and_a_segment_by_itself_does_not(segments: int, begins: bool) -> None:
    graph, memory = MemoryGraph(FAMILY), MemoryTier(ROOMY)
    starts = [Start(ROOT, 0, 1, 0, 1, job_segments=1_000)] * segments
    walk_together(starts, PageCache(graph, memory))
    asked = {name for names in graph.loads for name in names}
    if begins:
        wait_until(lambda: len(memory.get(dict.fromkeys(FAMILY.manifestations, 1))) == len(OTHERS) + 1, "all pages")
    else:
        assert len(asked) < len(OTHERS)
