"""The memory tier: its bound, its order, its freshness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.caching.memory import ENTRY_BYTES, SHORT_SECONDS, MemoryTier
from app.pages.page import Page, size_bytes
from tests.support.caches import ManualClock, PageMaker
from tests.support.graphs import unhurried

ROOMY = 10**9
puts = st.tuples(st.sampled_from("abcdef"), st.integers(0, 9), st.integers(0, 50))


def page(name: str, read_at_us: int = 0, segments: int = 1) -> Page:
    return PageMaker(segments).page(name, read_at_us)


@unhurried
@given(st.lists(puts, max_size=40), st.integers(0, 20_000))
def test_the_bound_in_bytes_is_kept_whatever_is_put(drawn: list[tuple[str, int, int]], limit_bytes: int) -> None:
    tier = MemoryTier(limit_bytes)
    for name, read_at_us, segments in drawn:
        tier.put([page(name, read_at_us, segments)])
        assert tier.held_bytes <= limit_bytes
    held = tier.get(dict.fromkeys("abcdef", 0))
    assert tier.held_bytes == sum(size_bytes(each) + ENTRY_BYTES for each in held.values())


@unhurried
@given(st.lists(puts, max_size=40))
def test_the_newest_page_put_is_the_one_held(drawn: list[tuple[str, int, int]]) -> None:
    tier = MemoryTier(ROOMY)
    for name, read_at_us, segments in drawn:
        tier.put([page(name, read_at_us, segments)])
    for name, held in tier.get(dict.fromkeys("abcdef", 0)).items():
        assert held.read_at_us == max(read_at_us for put, read_at_us, _ in drawn if put == name)


@unhurried
@given(st.integers(0, 20), st.integers(0, 20))
def test_a_page_read_before_the_need_is_not_given(read_at_us: int, fresh_since_us: int) -> None:
    tier = MemoryTier(ROOMY)
    tier.put([page("a", read_at_us)])
    assert bool(tier.get({"a": fresh_since_us})) == (read_at_us >= fresh_since_us)


def test_the_least_recently_used_page_goes_first() -> None:
    tier = MemoryTier(3 * (size_bytes(page("a")) + ENTRY_BYTES))
    tier.put([page("a"), page("b"), page("c")])
    tier.get({"a": 0})
    tier.put([page("d")])
    assert set(tier.get(dict.fromkeys("abcd", 0))) == {"a", "c", "d"}


def test_a_page_larger_than_the_bound_displaces_nothing() -> None:
    tier = MemoryTier(3 * (size_bytes(page("a")) + ENTRY_BYTES))
    tier.put([page("a"), page("b", segments=1000)])
    assert set(tier.get({"a": 0, "b": 0})) == {"a"}


@pytest.mark.parametrize("bad", [Page("a", 0, exists=False), Page("a", 0, exists=True, problem="malformed")])
def test_what_somebody_may_be_mending_is_believed_for_seconds_only(bad: Page) -> None:
    clock = ManualClock()
    tier = MemoryTier(ROOMY, clock)
    tier.put([bad, page("b")])
    clock.now += SHORT_SECONDS - 0.01
    assert set(tier.get({"a": 0, "b": 0})) == {"a", "b"}
    clock.now += 0.01
    assert set(tier.get({"a": 0, "b": 0})) == {"b"}
