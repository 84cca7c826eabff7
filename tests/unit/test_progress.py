"""Which thread stands still, and for how long."""

import threading
from collections.abc import Callable

import pytest

from app.threads.progress import MarkingStop, Progress
from app.threads.stopping import Stop
from tests.support.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def progress(clock: FakeClock) -> Progress:
    return Progress(clock)


def in_thread(name: str, *, watched_by: Progress | None, does: Callable[[], object]) -> threading.Thread:
    """A thread that has done it and ended."""
    thread = threading.Thread(target=does, name=name)
    if watched_by is not None:
        watched_by.watch(thread)
    thread.start()
    thread.join()
    return thread


def test_the_one_that_came_further_longest_ago_is_the_slowest(progress: Progress, clock: FakeClock) -> None:
    first = in_thread("first", watched_by=progress, does=progress.mark)
    clock.now += 3
    second = in_thread("second", watched_by=progress, does=progress.mark)
    clock.now += 4
    assert progress.slowest() == ("first", 7.0)
    assert progress.stalled(7.5) == []
    assert progress.stalled(5.0) == [first]
    assert progress.stalled(1.0) == [first, second]


def test_a_mark_is_its_own_thread_s_alone(progress: Progress, clock: FakeClock) -> None:
    watched = in_thread("watched", watched_by=progress, does=lambda: None)
    clock.now += 5
    in_thread("free", watched_by=None, does=progress.mark)
    progress.mark()
    assert progress.stalled(4.0) == [watched]
    assert progress.slowest() == ("watched", 5.0)


def test_a_thread_that_has_ended_stands_still_although_its_ident_is_given_again(
    progress: Progress, clock: FakeClock
) -> None:
    dead = in_thread("dead", watched_by=progress, does=progress.mark)
    clock.now += 5
    later = [in_thread("later", watched_by=None, does=progress.mark) for _ in range(5)]
    assert dead.ident in {thread.ident for thread in later}
    assert progress.stalled(4.0) == [dead]


def test_who_asks_whether_to_stop_has_come_further(progress: Progress, clock: FakeClock) -> None:
    stop = Stop()
    asking = MarkingStop(stop, progress)
    thread = threading.current_thread()
    progress.watch(thread)
    for ask in (asking.is_set, lambda: asking.wait(0.0)):
        clock.now += 5
        assert progress.stalled(4.0) == [thread]
        assert ask() is False
        assert progress.stalled(4.0) == []
    asking.set()
    assert stop.is_set()
    assert asking.wait(3_600.0) is True
