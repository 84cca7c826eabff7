"""Lookups in pages against the plain definition of overlap, and the page's size in memory."""

import gc
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.format import decode_page, encode_page
from app.pages.nearby import FEW_PAIRS
from app.pages.page import Page, size_bytes
from app.pages.spans import BLOCK_SPANS, compact, partition
from tests.support.graphs import pair_of, segmentation_of, unhurried

spans = st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))
queries = st.tuples(st.integers(-2, 45), st.integers(0, 45)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))
span_rows = st.lists(st.tuples(spans, spans).map(lambda drawn: (*drawn[0], *drawn[1])), max_size=40)
segment_rows = st.lists(
    st.tuples(st.text('ab~é𐐷"\\', max_size=3), spans), max_size=25, unique_by=lambda drawn: drawn[0]
).map(lambda drawn: [(name, start, end) for name, (start, end) in drawn])


@unhurried
@given(span_rows, queries)
def test_reach_is_what_comparing_every_span_finds(
    rows: list[tuple[int, int, int, int]], query: tuple[int, int]
) -> None:
    start, end = query
    hits = [(low, high) for s, e, low, high in rows if s < end and e > start]
    expected = (min(low for low, _ in hits), max(high for _, high in hits)) if hits else None
    assert pair_of("t", rows).reach(start, end) == expected


@unhurried
@given(st.data())
def test_reach_over_many_blocks_is_exact(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6 * BLOCK_SPANS))
    random = data.draw(st.randoms(use_true_random=False))
    hits = [(random.randrange(10_000), random.randrange(10_000, 20_000)) for _ in range(count)]
    pair = pair_of("t", [(at, at + 1, low, high) for at, (low, high) in enumerate(hits)])
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    found = hits[start:stop]
    assert pair.reach(start, stop) == (min(low for low, _ in found), max(high for _, high in found))


@unhurried
@given(st.data(), queries, st.integers(0, 10**6), st.integers(1, 10**6))
def test_pairs_near_a_span_are_all_that_reach_from_it_in_their_order(
    data: st.DataObject, query: tuple[int, int], place: int, scale: int
) -> None:
    """In texts of any length: queries within a cell at the edges of spans, across cells, before the text, behind it."""
    few_rows = st.lists(st.tuples(spans, spans).map(lambda drawn: (*drawn[0], *drawn[1])), min_size=1, max_size=2)
    lists = data.draw(st.lists(few_rows, min_size=FEW_PAIRS, max_size=FEW_PAIRS + 2))
    pairs = [
        pair_of(f"t{at}", [(place + s * scale, place + e * scale, low, high) for s, e, low, high in rows])
        for at, rows in enumerate(lists)
    ]
    page = Page("m", 0, True, tuple(pairs))
    edge = place + scale * data.draw(st.sampled_from([bound for rows in lists for row in rows for bound in row[:2]]))
    far = (place + query[0] * scale, place + query[1] * scale)
    for start, end in (query, far, (edge - 1, edge), (edge, edge + 1), (-(10**9), 1 - 10**9)):
        near = [pair.target for pair in page.near(start, end)]
        assert near == [pair.target for pair in pairs if pair.target in near]
        assert {pair.target for pair in pairs if pair.reach(start, end)} <= {*near}


def test_of_many_texts_that_are_aligned_with_a_part_each_few_are_looked_at() -> None:
    pairs = [pair_of(f"t{at}", [(at * 50, at * 50 + 100, 0, 1)]) for at in range(200)]
    page = Page("m", 0, True, tuple(pairs))
    assert [pair.target for pair in page.near(5_010, 5_020)] == [f"t{at}" for at in range(98, 103)]
    assert len(page.near(0, 10_000)) == 200


@unhurried
@given(segment_rows, queries)
def test_overlapping_is_what_comparing_every_segment_finds(
    rows: list[tuple[str, int, int]], query: tuple[int, int]
) -> None:
    start, end = query
    expected = [
        {"segment_id": name, "span": {"start": s, "end": e}}
        for name, s, e in sorted(rows, key=lambda row: (row[1], row[0]))
        if s < end and e > start
    ]
    segmentation = segmentation_of(rows)
    assert json.loads(f"[{segmentation.encode(segmentation.overlapping(start, end))}]") == expected


@unhurried
@given(segment_rows, queries, st.sampled_from([0, 10**6, 2**62]))
def test_an_entry_s_size_is_known_before_it_is_made_to_a_factor_of_two(
    rows: list[tuple[str, int, int]], query: tuple[int, int], far: int
) -> None:
    """The last segment may lie far behind the others, so that their numbers are much shorter."""
    start, end = query
    rows = [*rows[:-1], *((name, s + far, e + far) for name, s, e in rows[-1:])]
    page = Page('m"1', 0, True, segmentation=segmentation_of(rows))
    for stop in (end, end + far):
        ranks = page.segmentation.overlapping(start, stop)
        real = len(page.entry(ranks))
        assert real <= page.entry_bytes(ranks) < 2 * real
    assert page.entry_bytes([]) == len(page.entry([]))


@unhurried
@given(st.lists(spans, max_size=40))
def test_chains_are_monotone_and_as_few_as_the_depth_of_nesting(drawn: list[tuple[int, int]]) -> None:
    ordered = sorted(drawn, key=lambda span: span[0])
    chains = partition([end for _, end in ordered])
    assert sorted(at for chain in chains for at in chain) == list(range(len(ordered)))
    for chain in chains:
        ends = [ordered[at][1] for at in chain]
        assert list(chain) == sorted(chain)
        assert ends == sorted(ends)
    depths: list[int] = []
    for at, (_, end) in enumerate(ordered):
        depths.append(1 + max((depths[b] for b in range(at) if ordered[b][1] > end), default=0))
    assert len(chains) == max(depths, default=0)


def test_flat_spans_make_one_chain_and_nested_ones_a_chain_a_level() -> None:
    flat = [(at, at + 1, 0, 1) for at in range(100)]
    nested = [(at, 100 - at, 0, 1) for at in range(5)]
    assert len(pair_of("t", flat).chains) == 1
    assert len(pair_of("t", nested).chains) == 5


def test_many_hits_of_one_span_are_told_as_one() -> None:
    pair = pair_of("t", [(0, 5, 3, 4), (0, 5, 1, 2), (5, 9, 7, 8)])
    assert pair.reach(0, 5) == (1, 4)
    assert pair.hits(0, 9) == [(0, 5, 1, 4), (5, 9, 7, 8)]


def test_what_is_aligned_in_both_directions_is_one_row() -> None:
    rows = [(0, 5, 3, 4), (5, 9, 7, 8), (5, 9, 1, 2)]
    (chain,) = pair_of("t", [*rows, *rows]).chains
    assert sorted(chain.rows()) == rows[:1] + sorted(rows[1:])


def test_a_segment_of_two_annotations_counts_once() -> None:
    assert len(segmentation_of([("s", 0, 5), ("s", 0, 5), ("t", 5, 9)])) == 2


def test_the_json_of_a_result_entry_is_the_published_shape() -> None:
    page = Page('m"1', 0, True, segmentation=segmentation_of([("s", 0, 60)]))
    assert page.entry([0]) == (
        '{"manifestation_id": "m\\"1", "segments": [{"segment_id": "s", "span": {"start": 0, "end": 60}}]}'
    )
    assert page.entry([]) == '{"manifestation_id": "m\\"1", "segments": []}'


@pytest.mark.parametrize(("greatest", "typecode"), [(2**31 - 1, "i"), (2**31, "q"), (2**63 - 1, "q")])
def test_numbers_take_four_bytes_while_they_fit(greatest: int, typecode: str) -> None:
    numbers = compact([0, greatest])
    assert numbers.typecode == typecode
    assert list(numbers) == [0, greatest]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("count", [10, 3000])
@pytest.mark.parametrize("pairs", [2, 20])
def test_size_bytes_is_what_the_interpreter_allocates(count: int, depth: int, pairs: int) -> None:
    rows = [(at + level, at + 30 - level, at, at + 9) for at in range(0, 10 * count, 10) for level in range(depth)]
    segments = [(f"segment-{start}-{end}", start, end) for start, end, _, _ in rows]
    parts = [rows[at * len(rows) // pairs :] for at in range(pairs)]
    page = Page("m", 2**50, True, tuple(pair_of("t", part) for part in parts), segmentation_of(segments))
    encoded = encode_page(page, b"key")
    copies = 20
    decode_page(encoded, "m", b"key")
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pages = [decode_page(encoded, "m", b"key") for _ in range(copies)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allocated = (after - before) / copies
    assert 0.98 * allocated <= size_bytes(pages[0]) <= 1.15 * allocated
