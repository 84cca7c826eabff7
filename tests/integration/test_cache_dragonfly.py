"""The shared cache on a real server: workers that share it, and a server that is dead, slow or full of rubbish."""

import logging
import os
from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from app.cache import PageCache
from app.cache_memory import MemoryTier
from app.cache_shared import SharedTier
from app.cache_store import RedisStore, StoreError
from app.errors import ConfigurationError
from devstack import Stack
from devstack.proxy import Proxy
from tests.cache_fixtures import PageMaker

_numbers = count()


@pytest.fixture
def url(stack: Stack) -> str:
    return stack.env()["DRAGONFLY_URL"]


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    parts = urlsplit(url)
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        yield proxy


@pytest.fixture
def graph_id() -> str:
    """Of a graph that nobody has cached."""
    return f"{os.getpid()}-{next(_numbers)}"


def through(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f":{parts.password or ''}@127.0.0.1:{proxy.port}"))


def worker(url: str, graph_id: str, loader: PageMaker) -> PageCache:
    return PageCache(loader, MemoryTier(10**8), SharedTier(RedisStore(url), graph_id, 60))


def test_workers_share_what_one_of_them_loaded(url: str, graph_id: str) -> None:
    loader = PageMaker(segments=100)
    pages = worker(url, graph_id, loader).get({"a": 0, "b": 0}, 5)
    assert worker(url, graph_id, loader).get({"a": 5, "b": 0}, 6) == pages
    assert worker(url, graph_id, loader).get({"a": 6}, 7)["a"].read_at_us == 7
    assert loader.loads == [("a", "b"), ("a",)]


def test_a_frontier_of_misses_costs_three_round_trips_and_one_of_hits_one(
    url: str, graph_id: str, proxy: Proxy
) -> None:
    names = [f"page-{at}" for at in range(5)]
    costs = []
    for _ in range(2):
        cache = worker(through(proxy, url), graph_id, PageMaker())
        cache.get({"other": 0}, 1)
        before = proxy.round_trips
        cache.get(dict.fromkeys(names, 0), 1)
        costs.append(proxy.round_trips - before)
    assert costs == [3, 1]


@pytest.mark.parametrize("fault", ["cut", "black hole"])
def test_a_dead_server_costs_one_call_then_nothing_and_every_page_still_comes(
    fault: str, url: str, graph_id: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    loader = PageMaker()
    cache = worker(through(proxy, url), graph_id, loader)
    cache.get({"a": 0}, 1)
    if fault == "cut":
        proxy.cut()
    else:
        proxy.black_hole()
    with caplog.at_level(logging.INFO):
        assert set(cache.get({"b": 0, "c": 0}, 2)) == {"b", "c"}
        connections = proxy.connections
        assert set(cache.get({"d": 0}, 3)) == {"d"}
        assert proxy.connections == connections
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (urlsplit(url).password or "no password") not in caplog.text
    proxy.heal()


def test_connections_that_were_cut_meanwhile_are_replaced_without_a_failure(
    url: str, graph_id: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    cache = worker(through(proxy, url), graph_id, PageMaker())
    for read_at_us in range(1, 4):
        cache.get({"a": read_at_us}, read_at_us)
        proxy.cut()
        proxy.heal()
    assert caplog.records == []


def test_rubbish_in_every_key_is_read_from_the_graph_and_replaced(
    url: str, graph_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    loader = PageMaker()
    shared = SharedTier(RedisStore(url), graph_id, 60)
    names = {"a": 0, "b": 0, "c": 0}
    worker(url, graph_id, loader).get(names, 1)
    with redis.Redis.from_url(url) as client:
        client.set(shared._page_key("a"), b"rubbish")
        client.set(shared._page_key("b"), client.get(shared._page_key("c")) or b"")
        client.delete(shared._page_key("c"))
        client.lpush(shared._page_key("c"), "a list")
        for name in names:
            client.delete(shared._marker_key(name))
    for _ in range(2):
        assert set(worker(url, graph_id, loader).get(names, 2)) == set(names)
    assert loader.loads == [("a", "b", "c")] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


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
