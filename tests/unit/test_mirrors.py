"""An alignment that is read from one end gives the other end the page that reading it there would have given."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from app.core.segments import Start
from app.pages.mirrors import find_mirrors
from app.pages.page import Page, size_bytes
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
@given(span_rows, spans)
def test_a_pair_shows_what_the_other_end_reads(rows: list[tuple[int, int, int, int]], asked: tuple[int, int]) -> None:
    pair, other = pair_of("t", rows), pair_of("s", other_way(rows))
    shown = pair.mirrored("s")
    assert (shown.annotation, shown.other, shown.target) == ("a2", "a1", "s")
    assert shown.extent == other.extent
    assert shown.reach(*asked) == other.reach(*asked)
    assert shown.hits(*asked) == other.hits(*asked)
    assert (len(shown.chains), shown) == (len(other.chains), replace(other, annotation="a2", other="a1"))
    assert shown.mirrored("t") == pair


def test_a_pair_is_sorted_for_its_other_end_when_that_is_asked_first_and_only_then() -> None:
    pair = pair_of("t", [(0, 5, 7, 9), (5, 9, 2, 4)])
    shown = pair.mirrored("s")
    assert shown.given == (pair.chains, True)
    assert shown.reach(2, 4) == (5, 9)
    assert shown.given == (shown.chains, False)


def test_a_page_of_many_pairs_is_made_without_a_look_at_their_rows() -> None:
    """Neighbouring cells of a page are compared, and to compare rows takes thirty times as long as to place pairs."""
    pairs = [replace(pair_of("t", [(0, 9, at * 10, at * 10 + 9)]), annotation=f"a{at}") for at in range(40)]
    page = Page("t", 0, True, tuple(pair.mirrored("s") for pair in pairs))
    assert page.nearby is not None
    assert all(pair.given.from_other_end for pair in page.pairs)


def test_spans_that_nest_at_one_end_only_are_sorted_for_that_end_once() -> None:
    pair = pair_of("t", [(at, at + 1, at, at + 1) for at in range(40)] + [(40, 41, 5, 30)])
    shown = pair.mirrored("s")
    assert len(shown.chains) == 2
    assert shown.given == (shown.chains, False)


@unhurried
@given(span_rows)
def test_a_page_takes_no_more_room_than_was_counted_when_it_is_asked(rows: list[tuple[int, int, int, int]]) -> None:
    shown = pair_of("t", rows * 20).mirrored("s")
    before = size_bytes(Page("t", 0, True, (shown,)))
    assert shown.chains
    assert size_bytes(Page("t", 0, True, (shown,))) <= before


def test_what_takes_more_room_from_the_other_end_is_not_kept() -> None:
    """Spans that nest in each other are a chain each, which is much larger than its spans are."""
    pair = pair_of("t", [(at, at + 1, at, 100 - at) for at in range(40)])
    shown = pair.mirrored("s")
    before = size_bytes(Page("t", 0, True, (shown,)))
    assert len(shown.chains) == 40
    assert size_bytes(Page("t", 0, True, (shown,))) == before


@unhurried
@given(asked_families(damaged=True))
def test_pages_of_any_family_are_the_same_beside_pages_at_hand(asked: tuple[Family, list[Question]]) -> None:
    family, _ = asked
    pages = pages_of(family)
    for name, page in pages.items():
        mirrors = find_mirrors({name: 0}, pages.values(), 0)
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
        if level < level_of[pair.target]
    )


def test_a_page_that_was_read_earlier_than_was_asked_for_shows_nothing() -> None:
    root = SMALL.manifestations[0]
    needs = dict.fromkeys(SMALL.manifestations[1:], 5)
    assert any(find_mirrors(needs, [page_of(SMALL, root, 5)], 7).values())
    assert not any(find_mirrors(needs, [page_of(SMALL, root, 4)], 7).values())


def test_nothing_need_be_younger_than_the_claim() -> None:
    root = SMALL.manifestations[0]
    needs = dict.fromkeys(SMALL.manifestations[1:], 9)
    assert any(find_mirrors(needs, [page_of(SMALL, root, 7)], 7).values())
    assert not any(find_mirrors(needs, [page_of(SMALL, root, 6)], 7).values())


def test_a_page_is_as_old_as_what_it_was_shown() -> None:
    root = SMALL.manifestations[0]
    target = page_of(SMALL, root).pairs[0].target
    mirrors = find_mirrors({target: 5}, [page_of(SMALL, root, 6)], 7)
    assert page_of(SMALL, target, 7, mirrors).read_at_us == 6
    assert page_of(SMALL, target, 7, find_mirrors({target: 5}, [], 7)).read_at_us == 7


def test_a_text_that_is_gone_has_no_pairs_whatever_is_at_hand() -> None:
    root = SMALL.manifestations[0]
    target = page_of(SMALL, root).pairs[0].target
    mirrors = find_mirrors({target: 0}, [page_of(SMALL, root)], 0)
    gone = Family((), (), (), (), ())
    page = page_of(gone, target, 0, mirrors)
    assert (page.exists, page.pairs) == (False, ())
