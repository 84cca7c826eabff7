"""The port that pages come through, on every thing that stands behind it: see `PageSource` in app/pages/walk.py."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import neo4j
import pytest

from app.caching.memory import MemoryTier
from app.caching.redis_store import RedisStore
from app.caching.shared import SharedTier
from app.caching.tiers import PageCache
from app.neo4j_database import Neo4JDatabase
from app.pages.page import Page
from app.pages.reading import Reading
from app.pages.walk import PageSource
from devstack.families import Family, empty_graph
from devstack.stack import Stack
from tests.support.answers import EXAMPLES
from tests.support.caches import FakeStore
from tests.support.graphs import MemoryGraph, page_of

FAMILY = Family.from_json(EXAMPLES / "small_family.json")
ROOMY_BYTES = 10**9
_numbers = count()


@dataclass(frozen=True)
class Source:
    """The port under test, and a hand to change the graph behind it."""

    pages: PageSource
    load: Callable[[Family], None]


def cached(
    loader: MemoryGraph | Neo4JDatabase, store: RedisStore | FakeStore, memory_bytes: int = ROOMY_BYTES
) -> PageCache:
    """A cache with nothing in it: its key is its own."""
    shared = SharedTier(store, f"{os.getpid()}-{next(_numbers)}".encode(), ttl_seconds=60)
    return PageCache(loader, MemoryTier(memory_bytes), shared)


@pytest.fixture(params=["memory", "memory, cached", "Neo4j", "Neo4j, cached", "Neo4j, cached in no memory"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """The small family behind each kind of page source."""
    if request.param.startswith("memory"):
        memory = MemoryGraph(FAMILY)
        yield Source(
            cached(memory, FakeStore()) if "cached" in request.param else memory,
            lambda family: setattr(memory, "family", family),
        )
        return
    stack: Stack = request.getfixturevalue("stack")
    driver: neo4j.Driver = request.getfixturevalue("driver")
    load: Callable[[Family], None] = request.getfixturevalue("load_graph")
    environment = stack.env()
    graph = Neo4JDatabase(environment["NEO4J_URI"], environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    store = RedisStore(environment["DRAGONFLY_URL"])
    load(FAMILY)
    memory_bytes = 0 if "no memory" in request.param else ROOMY_BYTES
    yield Source(cached(graph, store, memory_bytes) if "cached" in request.param else graph, load)
    empty_graph(driver)
    store.close()
    graph.close()


def test_every_page_asked_for_comes_as_the_graph_has_it(source: Source) -> None:
    for _ in range(2):
        pages = source.pages.get(dict.fromkeys(FAMILY.manifestations, 3), Reading(7))
        assert pages == {name: page_of(FAMILY, name, 7) for name in FAMILY.manifestations}


def test_a_manifestation_that_does_not_exist_is_a_page_that_says_so(source: Source) -> None:
    for _ in range(2):
        pages = source.pages.get({"nowhere": 1, "root-bo": 1}, Reading(2))
        assert (pages["nowhere"].exists, pages["root-bo"].exists) == (False, True)
        assert pages["nowhere"].pairs == ()


def test_nothing_is_asked_for_and_nothing_comes(source: Source) -> None:
    assert source.pages.get({}, Reading(1)) == {}


def test_a_change_is_seen_by_who_asks_for_pages_no_older(source: Source) -> None:
    needs = dict.fromkeys(FAMILY.manifestations, 1)
    source.pages.get(needs, Reading(2))
    changed = Family.from_graph({**FAMILY.to_graph(), "aligned_annotations": FAMILY.aligned_annotations[1:]})
    source.load(changed)
    old, new = source.pages.get(needs, Reading(5)), source.pages.get(dict.fromkeys(needs, 4), Reading(5))
    assert all(page.read_at_us >= 1 for page in old.values())
    assert new == {name: page_of(changed, name, 5) for name in needs}


def test_with_others_at_hand_pages_come_as_the_graph_has_them(source: Source) -> None:
    at_hand: list[Page] = []
    for name in FAMILY.manifestations:
        pages = source.pages.get({name: 3}, Reading(7, at_hand))
        assert pages == {name: page_of(FAMILY, name, 7)}
        at_hand += pages.values()


def test_what_is_at_hand_is_believed_when_it_was_read_late_enough(source: Source) -> None:
    """A text's own page shows that the alignment is gone; a page at hand as of the same moment still has it."""
    names = list(FAMILY.manifestations)
    at_hand = [page_of(FAMILY, names[0], 7)]
    changed = Family.from_graph({**FAMILY.to_graph(), "aligned_annotations": []})
    source.load(changed)
    believed = source.pages.get(dict.fromkeys(names[1:], 6), Reading(7, at_hand))
    assert {pair.target for page in believed.values() for pair in page.pairs} == {names[0]}
    assert {page.read_at_us for page in believed.values() if page.pairs} == {7}
    later = source.pages.get(dict.fromkeys(names[1:], 8), Reading(8, at_hand))
    assert later == {name: page_of(changed, name, 8) for name in names[1:]}


def test_some_pages_may_be_needed_fresher_than_others(source: Source) -> None:
    source.pages.get({"root-bo": 1, "alone": 1}, Reading(2))
    pages = source.pages.get({"root-bo": 3, "alone": 1, "index-zh": 0}, Reading(4))
    assert set(pages) == {"root-bo", "alone", "index-zh"}
    assert (pages["root-bo"].read_at_us >= 3, pages["alone"].read_at_us >= 1) == (True, True)


def test_ids_are_data_whatever_is_in_them(source: Source) -> None:
    hostile = ["'}) DETACH DELETE m //", "a\nb", "\x01", "é" * 256, "*", "srp:1:x", "～𐐷", " ", "\r\nFLUSHALL\r\n"]
    pages = source.pages.get(dict.fromkeys([*hostile, "root-bo"], 1), Reading(2))
    assert {name: page.exists for name, page in pages.items()} == dict.fromkeys(hostile, False) | {"root-bo": True}
