"""The store behind the shared cache, in memory and real: see `Store` in app/caching/store.py."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import pytest

from app.caching.redis_store import RedisStore
from app.caching.store import Entry, Store
from devstack.stack import Stack
from tests.support.caches import FakeStore

LONG_MS = 1_000_000
LIMIT_SECONDS = 30
_numbers = count()


@dataclass(frozen=True)
class Kept:
    """The store under test, and a way to let `seconds` pass for it."""

    store: Store
    until: Callable[[Callable[[], bool], float], None]


@pytest.fixture(params=["fake", "real"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """The fake, and the cache server of the stack."""
    if request.param == "fake":
        fake = FakeStore()

        def pass_time(condition: Callable[[], bool], seconds: float) -> None:
            fake.clock.now += seconds
            assert condition()

        yield Kept(fake, pass_time)
        return

    def wait(condition: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.01)

    stack: Stack = request.getfixturevalue("stack")
    store = RedisStore(stack.env()["DRAGONFLY_URL"])
    yield Kept(store, wait)
    store.close()


@pytest.fixture
def key() -> str:
    """One that nobody has used."""
    return f"test:{os.getpid()}:{next(_numbers)}"


def test_values_come_in_the_order_of_the_keys_none_for_what_is_not_there(kept: Kept, key: str) -> None:
    entries = [Entry(f"{key}:{at}", b"%d" % at, LONG_MS) for at in range(3)]
    assert kept.store.set_many(entries) == [True] * 3
    keys = [f"{key}:{at}" for at in (2, 9, 0, 1)]
    assert kept.store.get_many(keys) == [b"2", None, b"0", b"1"]


@pytest.mark.parametrize("value", [b"", b"\x00\xff\r\n$-1\r\n", b"x" * 3_000_000])
def test_any_bytes_are_kept(value: bytes, kept: Kept, key: str) -> None:
    kept.store.set_many([Entry(key, value, LONG_MS)])
    assert kept.store.get_many([key]) == [value]


@pytest.mark.parametrize("odd", ["é～𐐷", "a b\r\nSET x y\r\n", "\x00", "x" * 512])
def test_any_text_is_a_key(odd: str, kept: Kept, key: str) -> None:
    kept.store.set_many([Entry(key + odd, b"1", LONG_MS)])
    assert kept.store.get_many([key + odd, key]) == [b"1", None]


def test_a_later_value_replaces_an_earlier_one(kept: Kept, key: str) -> None:
    kept.store.set_many([Entry(key, b"1", LONG_MS), Entry(key, b"2", LONG_MS)])
    assert kept.store.get_many([key]) == [b"2"]


def test_only_if_absent_leaves_what_is_there(kept: Kept, key: str) -> None:
    entries = [Entry(key, b"1", LONG_MS, True), Entry(key, b"2", LONG_MS, True)]
    assert kept.store.set_many(entries) == [True, False]
    assert kept.store.get_many([key]) == [b"1"]


def test_a_value_vanishes_when_its_time_is_up(kept: Kept, key: str) -> None:
    kept.store.set_many([Entry(key, b"1", 200), Entry(f"{key}:kept", b"1", LONG_MS)])
    kept.until(lambda: kept.store.get_many([key]) == [None], 0.2)
    assert kept.store.set_many([Entry(key, b"2", LONG_MS, True)]) == [True]
    assert kept.store.get_many([f"{key}:kept"]) == [b"1"]


def test_many_threads_use_it_at_once(kept: Kept, key: str) -> None:
    def work(number: int) -> bool:
        name, value = f"{key}:{number}", b"%d" % number * 1000
        return all(
            kept.store.set_many([Entry(name, value, LONG_MS)]) == [True] and kept.store.get_many([name]) == [value]
            for _ in range(20)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_of_many_threads_one_sets_what_is_absent(kept: Kept, key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: kept.store.set_many([Entry(key, b"1", LONG_MS, True)])[0], range(8)))
    assert answers.count(True) == 1
