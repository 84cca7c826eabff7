"""The shared cache on a real server: workers that share it, and a server that is dead, slow or full of rubbish."""

import logging
import os
from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

import pytest
import redis

from app.caching.key import derive_key, name_clock
from app.caching.memory import MemoryTier
from app.caching.redis_store import RedisStore
from app.caching.shared import SharedTier
from app.caching.store import Entry, StoreError
from app.caching.tiers import PageCache
from app.errors import ConfigurationError
from app.pages.format import encode_page
from app.pages.page import Page
from app.pages.reading import Reading
from devstack.proxy import Proxy, moved
from devstack.stack import Stack
from tests.support.caches import PageMaker

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
_numbers = count()


@pytest.fixture
def url(stack: Stack) -> str:
    return stack.env()["DRAGONFLY_URL"]


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    with Proxy.before(url) as proxy:
        yield proxy


@pytest.fixture
def key() -> bytes:
    """Under which nobody has cached anything."""
    return b"%d-%d" % (os.getpid(), next(_numbers))


def through(proxy: Proxy, url: str) -> str:
    return moved(url, proxy.port)


def worker(url: str, key: bytes, loader: PageMaker) -> PageCache:
    return PageCache(loader, MemoryTier(10**8), SharedTier(RedisStore(url), key, 60))


def test_workers_share_what_one_of_them_loaded(url: str, key: bytes) -> None:
    loader = PageMaker(segments=100)
    pages = worker(url, key, loader).get({"a": 0, "b": 0}, Reading(5))
    assert worker(url, key, loader).get({"a": 5, "b": 0}, Reading(6)) == pages
    assert worker(url, key, loader).get({"a": 6}, Reading(7))["a"].read_at_us == 7
    assert loader.loads == [("a", "b"), ("a",)]


def test_a_frontier_of_misses_costs_three_round_trips_and_one_of_hits_one(url: str, key: bytes, proxy: Proxy) -> None:
    names = [f"page-{at}" for at in range(5)]
    costs = []
    for _ in range(2):
        cache = worker(through(proxy, url), key, PageMaker())
        cache.get({"other": 0}, Reading(1))
        before = proxy.counters().round_trips
        cache.get(dict.fromkeys(names, 0), Reading(1))
        costs.append(proxy.counters().round_trips - before)
    assert costs == [3, 1]


@pytest.mark.parametrize("fault", ["cut", "black hole"])
def test_a_dead_server_costs_one_call_then_nothing_and_every_page_still_comes(
    fault: str, url: str, key: bytes, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    loader = PageMaker()
    cache = worker(through(proxy, url), key, loader)
    cache.get({"a": 0}, Reading(1))
    if fault == "cut":
        proxy.cut()
    else:
        proxy.black_hole()
    with caplog.at_level(logging.INFO):
        assert set(cache.get({"b": 0, "c": 0}, Reading(2))) == {"b", "c"}
        connections = proxy.counters().connections
        assert set(cache.get({"d": 0}, Reading(3))) == {"d"}
        assert proxy.counters().connections == connections
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (urlsplit(url).password or "no password") not in caplog.text
    proxy.heal()


def test_connections_that_were_cut_meanwhile_are_replaced_without_a_failure(
    url: str, key: bytes, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    cache = worker(through(proxy, url), key, PageMaker())
    for read_at_us in range(1, 4):
        cache.get({"a": read_at_us}, Reading(read_at_us))
        proxy.cut()
        proxy.heal()
    assert caplog.records == []


def test_rubbish_in_every_key_is_read_from_the_graph_and_replaced(
    url: str, key: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    loader = PageMaker()
    shared = SharedTier(RedisStore(url), key, 60)
    names = {"a": 0, "b": 0, "c": 0}
    worker(url, key, loader).get(names, Reading(1))
    with redis.Redis.from_url(url) as client:
        client.set(shared._page_key("a"), b"rubbish")
        client.set(shared._page_key("b"), client.get(shared._page_key("c")) or b"")
        client.delete(shared._page_key("c"))
        client.lpush(shared._page_key("c"), "a list")
        for name in names:
            client.delete(shared._marker_key(name))
    for _ in range(2):
        assert set(worker(url, key, loader).get(names, Reading(2))) == set(names)
    assert loader.loads == [("a", "b", "c")] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_reply_that_is_too_long_is_not_taken_into_memory(
    url: str, key: bytes, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = key.decode()
    store = RedisStore(through(proxy, url))
    with redis.Redis.from_url(url) as client:
        client.set(name, bytes(50_000_000), px=60_000)
    monkeypatch.setattr("app.caching.redis_store.MAX_REPLY_BYTES", 1_000_000)
    with pytest.raises(StoreError, match="longer than 1000000 bytes"):
        store.get_many([name])
    assert store.set_many([Entry(name, b"x" * 900_000, 60_000)]) == [True]
    for _ in range(3):
        assert store.get_many([name, "none"]) == [b"x" * 900_000, None]
    with pytest.raises(StoreError, match="longer than 1000000 bytes"):
        store.get_many([name, name])


def test_a_forged_page_is_read_from_the_graph_and_gone_with_the_cache(
    url: str, key: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """By one who can write there, be it without the key, or with it and in the name of the future."""
    loader = PageMaker(segments=3)
    shared = SharedTier(RedisStore(url), key, 60)
    cache = worker(url, key, loader)
    with redis.Redis.from_url(url) as client:
        client.set(shared._page_key("a"), encode_page(Page("a", NOW_US - 1, True), b"guessed"), px=60_000)
        client.set(shared._page_key("b"), encode_page(Page("b", NOW_US + HOUR_US, True), key), px=60_000)
        client.set(shared._marker_key("b"), b"%d" % (NOW_US + HOUR_US), px=60_000)
        assert cache.get({"a": 0, "b": 0}, Reading(NOW_US)) == {name: loader.page(name, NOW_US) for name in "ab"}
        client.delete(*map(shared._page_key, "ab"), *map(shared._marker_key, "ab"))
    assert cache.get({"a": 0, "b": 0}, Reading(NOW_US + 1)) == {name: loader.page(name, NOW_US) for name in "ab"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_workers_of_two_postgresqls_or_of_two_passwords_share_nothing(url: str, key: bytes) -> None:
    loader = PageMaker()
    loader_id = key.decode()
    keys = [
        derive_key(secret, loader_id, name_clock(postgres))
        for secret in ("one", "two")
        for postgres in ("postgresql://u:p@one:5432/segments", "postgresql://u:p@two:5432/segments")
    ]
    for each in keys:
        worker(url, each, loader).get({"a": 0}, Reading(NOW_US))
    assert len(loader.loads) == len(keys)
    for each in keys:
        worker(url, each, loader).get({"a": 0}, Reading(NOW_US))
    assert len(loader.loads) == len(keys)


@pytest.mark.parametrize(
    "wrong",
    ["redis://127.0.0.1:1", "redis://nowhere.invalid:6379", "rediss://{server}", "redis://:secret-word@{server}/0"],
)
def test_a_wrong_url_is_a_dead_server_and_its_password_is_not_told(wrong: str, url: str) -> None:
    server = urlsplit(url).netloc.rpartition("@")[2]
    store = RedisStore(wrong.format(server=server))
    with pytest.raises(StoreError) as caught:
        store.get_many(["a"])
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["http://host", "redis://:secret/word@host:6379"])
def test_a_url_that_makes_no_sense_is_a_wrong_setting_and_is_not_told(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(wrong)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__, "the vendor's error holds the URL"


def test_tls_is_asked_for_by_the_url() -> None:
    store = RedisStore("rediss://:x@host:6379/0")
    assert store._client.connection_pool.connection_class is redis.SSLConnection
    assert "ssl_cert_reqs" not in store._client.connection_pool.connection_kwargs
