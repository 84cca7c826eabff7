"""The budget of bytes: its bound, its order, and that nothing is left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.threads.budget import ByteBudget
from tests.support.graphs import unhurried
from tests.support.worker import wait_until

LIMIT_BYTES = 100
WAIT_SECONDS = 30


class Holder:
    """A thread that reserves, says so, and holds until it is told to let go."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        before = len(budget._waiting)
        self._budget = budget
        self._size_bytes = size_bytes
        self._let_go = threading.Event()
        self.has_it = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()
        wait_until(lambda: self.has_it.is_set() or len(budget._waiting) > before, "the thread to come")

    def _hold(self) -> None:
        with self._budget.reserve(self._size_bytes):
            self.has_it.set()
            assert self._let_go.wait(WAIT_SECONDS)

    def let_go(self) -> None:
        """And see it gone."""
        self._let_go.set()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(LIMIT_BYTES)


def test_what_fits_is_held_at_once_and_what_does_not_waits(budget: ByteBudget) -> None:
    first, second, third = (Holder(budget, size) for size in (60, 40, 1))
    assert first.has_it.is_set()
    assert second.has_it.is_set()
    assert not third.has_it.is_set()
    second.let_go()
    assert third.has_it.wait(WAIT_SECONDS)
    first.let_go()
    third.let_go()
    assert budget.reserved_bytes == 0


def test_one_larger_than_the_budget_is_let_in_alone(budget: ByteBudget) -> None:
    small, giant, later = Holder(budget, 1), Holder(budget, 10 * LIMIT_BYTES), Holder(budget, 0)
    assert not giant.has_it.is_set()
    small.let_go()
    assert giant.has_it.wait(WAIT_SECONDS)
    assert not later.has_it.is_set()
    giant.let_go()
    assert later.has_it.wait(WAIT_SECONDS)
    later.let_go()


def test_small_ones_that_come_later_do_not_starve_a_large_one(budget: ByteBudget) -> None:
    early, large = Holder(budget, 50), Holder(budget, 80)
    small = [Holder(budget, 10) for _ in range(3)]
    assert not any(each.has_it.is_set() for each in (large, *small))
    early.let_go()
    assert large.has_it.wait(WAIT_SECONDS)
    for each in small[:2]:
        assert each.has_it.wait(WAIT_SECONDS)
    assert not small[2].has_it.is_set()
    large.let_go()
    for each in small:
        assert each.has_it.wait(WAIT_SECONDS)
        each.let_go()


def test_an_error_in_the_block_gives_the_bytes_back(budget: ByteBudget) -> None:
    with pytest.raises(ValueError, match="of the block"), budget.reserve(70):
        raise ValueError("of the block")
    assert budget.reserved_bytes == 0
    with budget.reserve(LIMIT_BYTES):
        assert budget.reserved_bytes == LIMIT_BYTES


def test_while_it_waits_a_caller_says_so_and_may_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.threads.budget.STEP_SECONDS", 0.001)
    said: list[int] = []

    def give_up_at_last() -> None:
        said.append(len(said))
        if len(said) == 3:
            raise TimeoutError("for long enough")

    budget = ByteBudget(LIMIT_BYTES, give_up_at_last)
    holder = Holder(budget, 50)
    with pytest.raises(TimeoutError, match="for long enough"), budget.reserve(80):
        pytest.fail("there was no room")
    assert said == [0, 1, 2]
    behind = Holder(budget, 50)
    assert behind.has_it.wait(WAIT_SECONDS)
    holder.let_go()
    behind.let_go()
    assert budget.reserved_bytes == 0


def test_those_behind_one_that_gives_up_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.threads.budget.STEP_SECONDS", 0.001)
    gives_up = threading.Event()

    def came_further() -> None:
        if gives_up.is_set() and threading.current_thread() in impatient:
            raise TimeoutError

    budget = ByteBudget(LIMIT_BYTES, came_further)
    impatient: list[threading.Thread] = []

    def wait_in_vain() -> None:
        impatient.append(threading.current_thread())
        with budget.reserve(80):
            pytest.fail("there was no room")

    holder = Holder(budget, 50)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(wait_in_vain)
        wait_until(lambda: len(budget._waiting) == 1, "the large one to wait")
        behind = Holder(budget, 50)
        assert not behind.has_it.is_set()
        gives_up.set()
        assert isinstance(ahead.exception(WAIT_SECONDS), TimeoutError)
    assert behind.has_it.wait(WAIT_SECONDS)
    holder.let_go()
    behind.let_go()


@unhurried
@given(st.lists(st.integers(0, 150), min_size=1, max_size=40))
def test_whatever_is_asked_for_at_once_the_bound_is_kept_and_all_come_to_their_turn(sizes: list[int]) -> None:
    budget = ByteBudget(LIMIT_BYTES)
    held: list[int] = []
    lock = threading.Lock()

    @contextmanager
    def noted(size: int) -> Iterator[None]:
        with lock:
            held.append(size)
            assert sum(held) <= LIMIT_BYTES or len(held) == 1
        yield
        with lock:
            held.remove(size)

    def work(size: int) -> int:
        with budget.reserve(size), noted(size):
            return size

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, sizes, timeout=WAIT_SECONDS)) == sizes
    assert budget.reserved_bytes == 0
