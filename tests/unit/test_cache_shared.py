"""The shared tier: freshness, rubbish, markers, and what a dead store costs."""

import logging
import threading
from collections.abc import Sequence

import pytest

from app.caching.memory import SHORT_SECONDS
from app.caching.server_clock import SLACK_US
from app.caching.shared import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    MARKER_MS,
    MAX_BYTES_A_CALL,
    RUBBISH_WARNING_SECONDS,
    SharedTier,
)
from app.pages.format import encode_page
from app.pages.page import Page
from tests.support.caches import FakeStore, ManualClock, PageMaker

KEY = b"the key"
NOW_US = 10  # of the caller's claim
TTL_SECONDS = 100
WAIT_SECONDS = 30


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def tier(store: FakeStore, clock: ManualClock) -> SharedTier:
    return SharedTier(store, KEY, TTL_SECONDS, clock)


def page(name: str, read_at_us: int = 5) -> Page:
    return PageMaker().page(name, read_at_us)


def test_what_is_put_is_got_by_other_workers_until_its_time_is_up(
    tier: SharedTier, store: FakeStore, clock: ManualClock
) -> None:
    tier.put([page("a"), page("b")])
    other = SharedTier(store, KEY, TTL_SECONDS, clock)
    assert other.get({"a": 5, "b": 0, "c": 0}, NOW_US) == {"a": page("a"), "b": page("b")}
    clock.now += TTL_SECONDS
    assert other.get({"a": 0, "b": 0}, NOW_US) == {}


def test_a_page_read_before_the_need_is_a_miss(tier: SharedTier) -> None:
    tier.put([page("a", 5)])
    assert tier.get({"a": 6}, NOW_US) == {}


def test_pages_under_another_key_are_not_even_read(
    tier: SharedTier, store: FakeStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    other = SharedTier(store, b"another key", TTL_SECONDS, clock)
    tier.put([page("a")])
    other.put([page("a", 6)])
    assert tier.get({"a": 0}, NOW_US) == {"a": page("a")}
    assert other.get({"a": 0}, NOW_US) == {"a": page("a", 6)}
    assert caplog.records == []


def test_a_page_that_was_forged_without_the_key_is_a_miss_with_a_warning(
    tier: SharedTier, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    tier.put([page("a")])
    (name,) = store.values
    store.values[name] = (encode_page(page("a", 9), b"another key"), 10**9)
    assert tier.get({"a": 0}, NOW_US) == {}
    assert "the checksum differs" in caplog.text


def test_a_page_of_the_future_is_a_miss_with_a_warning_until_its_time_has_come(
    tier: SharedTier, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tier.put([page("a", NOW_US + SLACK_US), page("b", NOW_US + SLACK_US + 1), page("c", 2**62)])
    for _ in range(2):
        assert set(tier.get({"a": 0, "b": 0, "c": 0}, NOW_US)) == {"a"}
    assert set(tier.poll({"a": 0, "b": 0, "c": 0}).ready) == {"a"}
    (said,) = caplog.records
    assert "read later than now" in said.getMessage()
    clock.now += 1
    assert set(tier.get({"b": 0, "c": 0}, NOW_US)) == {"b"}


def test_a_marker_that_promises_the_future_holds_nobody(tier: SharedTier, store: FakeStore) -> None:
    for promised, holds in [(NOW_US + SLACK_US, {"a"}), (NOW_US + SLACK_US + 1, set()), (10**18, set())]:
        store.values.clear()
        SharedTier(store, KEY, TTL_SECONDS, store.clock).announce(["a"], promised)
        tier.get({"a": 0}, NOW_US)
        assert tier.poll({"a": 0}).pending == holds


def test_a_page_too_large_to_be_shared_is_left_out_and_said_once(
    tier: SharedTier, store: FakeStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = PageMaker(segments=2000).page("large", 5)
    monkeypatch.setattr("app.pages.format.MAX_BODY_BYTES", 5_000)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            tier.put([page("a"), large, page("b")])
    assert set(tier.get({"a": 0, "b": 0, "large": 0}, NOW_US)) == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "large is too large to be shared" in caplog.text


@pytest.mark.parametrize("bad", [Page("a", 0, exists=False), Page("a", 0, exists=True, problem="malformed")])
def test_what_somebody_may_be_mending_is_kept_for_seconds_only(bad: Page, tier: SharedTier, clock: ManualClock) -> None:
    tier.put([bad])
    assert tier.get({"a": 0}, NOW_US) == {"a": bad}
    clock.now += SHORT_SECONDS
    assert tier.get({"a": 0}, NOW_US) == {}


@pytest.mark.parametrize("bad", [Page("a", 5, exists=False), Page("a", 5, exists=True, problem="malformed")])
def test_what_was_mended_is_not_believed_again_when_it_is_put_back(
    bad: Page, tier: SharedTier, store: FakeStore, clock: ManualClock
) -> None:
    tier.put([bad])
    (kept,) = store.values.items()
    assert tier.get({"a": 5}, NOW_US) == {"a": bad}
    clock.now += SHORT_SECONDS + 1
    store.values[kept[0]] = (kept[1][0], 10**9)
    assert tier.get({"a": 5}, NOW_US) == {}


def test_a_frontier_is_one_call_and_so_are_its_pages(tier: SharedTier, store: FakeStore) -> None:
    pages = [page(f"p{at}") for at in range(40)]
    tier.put(pages)
    assert store.calls == 1
    assert len(tier.get(dict.fromkeys((each.manifestation_id for each in pages), 0), NOW_US)) == 40
    assert store.calls == 2


def test_no_call_is_made_for_nothing(tier: SharedTier, store: FakeStore) -> None:
    assert (tier.get({}, NOW_US), tier.announce([], 0), tier.poll({})) == ({}, set(), ({}, set()))
    tier.put([])
    assert store.calls == 0


def test_large_pages_are_put_in_calls_of_bounded_size(tier: SharedTier, store: FakeStore) -> None:
    pages = [PageMaker(segments=2000).page(f"p{at}", 0) for at in range(3)]
    size = sum(len(encode_page(each, KEY)) for each in pages)
    assert size < MAX_BYTES_A_CALL
    tier.put(pages * (2 * MAX_BYTES_A_CALL // size))
    assert store.calls >= 2


def test_rubbish_is_a_miss_with_a_warning_now_and_then(
    tier: SharedTier, store: FakeStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tier.put([page("a"), page("b"), page("c")])
    keys = list(store.values)
    store.values[keys[0]] = (b"rubbish", 10**9)
    store.values[keys[1]] = store.values[keys[2]]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert set(tier.get({"a": 0, "b": 0, "c": 0}, NOW_US)) == {"c"}
        assert len(caplog.records) == 1
        clock.now += RUBBISH_WARNING_SECONDS
        tier.get({"a": 0}, NOW_US)
        assert len(caplog.records) == 2
    assert "rubbish" not in caplog.text


def test_one_of_two_workers_loads_and_the_other_sees_that_it_does(tier: SharedTier, clock: ManualClock) -> None:
    assert tier.announce(["a", "b"], read_at_us=7) == {"a", "b"}
    assert tier.announce(["b", "c"], read_at_us=8) == {"c"}
    assert tier.poll({"b": 7}) == ({}, {"b"})
    tier.put([page("b", 7)])
    assert tier.poll({"b": 7}) == ({"b": page("b", 7)}, set())


def test_nobody_waits_for_a_page_that_is_not_going_to_be_fresh_enough(tier: SharedTier) -> None:
    tier.announce(["a"], read_at_us=7)
    assert tier.poll({"a": 8}) == ({}, set())


def test_the_marker_of_a_worker_that_died_is_gone_in_time(tier: SharedTier, clock: ManualClock) -> None:
    tier.announce(["a"], read_at_us=7)
    clock.now += MARKER_MS / 1000
    assert tier.poll({"a": 0}) == ({}, set())
    assert tier.announce(["a"], read_at_us=9) == {"a"}


@pytest.mark.parametrize("rubbish", [b"", b"-1", b"x", b"9" * 5000, b"\xff"])
def test_a_rubbish_marker_holds_nobody(rubbish: bytes, tier: SharedTier, store: FakeStore) -> None:
    tier.announce(["a"], read_at_us=7)
    (key,) = store.values
    store.values[key] = (rubbish, 10**9)
    assert tier.poll({"a": 0}) == ({}, set())


def test_a_dead_store_is_tried_once_then_left_alone_ever_longer(
    tier: SharedTier, store: FakeStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.error = "TimeoutError: no answer"
    tried_at: list[float] = []
    began = clock.now
    with caplog.at_level(logging.DEBUG):
        while clock.now < began + 200:
            calls = store.calls
            assert tier.get({"a": 0}, NOW_US) == {}
            assert tier.announce(["a"], 0) == {"a"}
            assert tier.poll({"a": 0}) == ({}, set())
            tier.put([page("a")])
            if store.calls > calls:
                assert store.calls == calls + 1
                tried_at.append(clock.now - began)
            clock.now += 1
        first, second, third = FIRST_REST_SECONDS, 2 * FIRST_REST_SECONDS, 4 * FIRST_REST_SECONDS
        assert tried_at[:4] == [0, first, first + second, first + second + third]
        assert tried_at[4] - tried_at[3] == LONGEST_REST_SECONDS
        assert [(record.levelname, "TimeoutError" in record.getMessage()) for record in caplog.records] == [
            ("WARNING", True)
        ]


def test_a_store_that_is_back_is_said_to_be_back_once(
    tier: SharedTier, store: FakeStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        store.error = "gone"
        tier.get({"a": 0}, NOW_US)
        store.error = ""
        tier.put([page("a")])
        assert tier.get({"a": 0}, NOW_US) == {}
        clock.now += FIRST_REST_SECONDS
        assert tier.get({"a": 0}, NOW_US) == {}
        tier.put([page("a")])
        assert tier.get({"a": 0}, NOW_US) == {"a": page("a")}
        store.error = "gone"
        tier.get({"a": 0}, NOW_US)
        clock.now += FIRST_REST_SECONDS - 1
        calls = store.calls
        tier.get({"a": 0}, NOW_US)
        assert store.calls == calls
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_while_one_thread_tries_a_resting_store_the_others_leave_it_alone(clock: ManualClock) -> None:
    entered, goes_on = threading.Event(), threading.Event()

    class SlowStore(FakeStore):
        def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
            entered.set()
            assert goes_on.wait(WAIT_SECONDS)
            return super().get_many(keys)

    store = SlowStore(clock)
    tier = SharedTier(store, KEY, TTL_SECONDS, clock)
    goes_on.set()
    store.error = "gone"
    tier.get({"a": 0}, NOW_US)
    clock.now += FIRST_REST_SECONDS
    entered.clear()
    goes_on.clear()
    trying = threading.Thread(target=tier.get, args=({"a": 0}, NOW_US))
    trying.start()
    assert entered.wait(WAIT_SECONDS)
    entered.clear()
    others = [threading.Thread(target=tier.get, args=({"a": 0}, NOW_US), daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(WAIT_SECONDS)
    assert not entered.is_set()
    goes_on.set()
    trying.join()
    assert store.calls == 2


def test_failures_of_calls_from_before_do_not_prolong_the_rest(clock: ManualClock) -> None:
    """Two threads in the middle of a call when the store dies: one failure, one rest."""
    both = threading.Barrier(2)

    class DyingStore(FakeStore):
        def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
            both.wait()
            self.error = "gone"
            return super().get_many(keys)

    tier = SharedTier(DyingStore(clock), KEY, TTL_SECONDS, clock)
    threads = [threading.Thread(target=tier.get, args=({"a": 0}, NOW_US)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tier._breaker._rest_seconds == FIRST_REST_SECONDS
