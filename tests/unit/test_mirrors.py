"""An alignment that is read from one end gives the other end the page that reading it there would have given."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.segments import Start
from app.pages.mirrors import find_mirrors
from app.pages.walk import walk_together
from devstack.families import Family
from tests.support.answers import EXAMPLES
from tests.support.graphs import MemoryGraph, page_of, pages_of, pair_of, unhurried
from tests.support.strategies import Question, asked_families

SMALL = Family.from_json(EXAMPLES / "small_family.json")
spans = st.tuples(st.integers(0, 9), st.integers(0, 4)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))
span_rows = st.lists(st.tuples(spans, spans).map(lambda drawn: (*drawn[0], *drawn[1])), min_size=1, max_size=8)


def other_way(rows: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    return [(low, high, start, end) for start, end, low, high in rows]


@unhurried
@given(span_rows)
def test_a_whole_pair_shows_what_the_other_end_reads(rows: list[tuple[int, int, int, int]]) -> None:
    pair, other = pair_of("t", rows), pair_of("s", other_way(rows))
    assume(pair.is_whole)
    shown = pair.mirrored("s")
    assert (shown.annotation, shown.other, shown.target) == ("a2", "a1", "s")
    assert (shown.chains, shown.is_whole) == (other.chains, other.is_whole)


@pytest.mark.parametrize(
    ("rows", "is_whole"),
    [
        ([(0, 5, 3, 4), (5, 9, 7, 8)], True),
        ([(0, 5, 3, 4), (5, 9, 3, 4)], True),
        ([(0, 5, 3, 4), (0, 9, 7, 8)], True),
        ([(0, 5, 3, 4), (0, 5, 3, 4)], True),
        ([(0, 5, 3, 4), (0, 5, 7, 8)], False),
        ([(0, 5, 3, 4), (0, 5, 3, 4), (0, 5, 7, 8)], False),
    ],
)
def test_a_pair_is_whole_until_different_hits_are_merged(rows: list[tuple[int, int, int, int]], is_whole: bool) -> None:
    assert pair_of("t", rows).is_whole is is_whole


@unhurried
@given(asked_families(damaged=True))
def test_pages_of_any_family_are_the_same_beside_pages_at_hand(asked: tuple[Family, list[Question]]) -> None:
    family, _ = asked
    pages = pages_of(family)
    for name, page in pages.items():
        mirrors = find_mirrors([name], pages.values(), 0)
        assert page_of(family, name, 0, mirrors) == page


def test_a_walk_reads_each_alignment_between_its_levels_once() -> None:
    graph = MemoryGraph(SMALL)
    root = SMALL.manifestations[0]
    walk_together([Start(root, 0, 10**6, 0, 1)], graph)
    level_of = {name: level for level, names in enumerate(graph.loads) for name in names}
    assert graph.spared
    assert sorted(graph.spared) == sorted(
        [pair.other, pair.annotation, name]
        for name, level in level_of.items()
        for pair in page_of(SMALL, name).pairs
        if pair.is_whole and level < level_of[pair.target]
    )


def test_a_page_that_was_read_earlier_shows_nothing() -> None:
    root = SMALL.manifestations[0]
    others = SMALL.manifestations[1:]
    assert any(find_mirrors(others, [page_of(SMALL, root, 5)], 5).values())
    assert not any(find_mirrors(others, [page_of(SMALL, root, 4)], 5).values())


def test_a_text_that_is_gone_has_no_pairs_whatever_is_at_hand() -> None:
    root = SMALL.manifestations[0]
    target = page_of(SMALL, root).pairs[0].target
    mirrors = find_mirrors([target], [page_of(SMALL, root)], 0)
    gone = Family((), (), (), (), ())
    page = page_of(gone, target, 0, mirrors)
    assert (page.exists, page.pairs) == (False, ())
