"""What the builder makes of incomplete and of malformed data."""

import logging
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pages.build import WarnOnce, build_pages
from tests.support.graphs import build, end_row, layer_row, pair_row, segmentation_of, unhurried

NAN = float("nan")


@pytest.mark.parametrize(
    ("start", "end"),
    [("0", 10), (0, "10"), (0.0, 10.0), (NAN, 1), (True, 5), (-1, 5), (7, 5), ([0], 5), (b"0", 5)],
)
def test_malformed_spans_make_the_page_a_problem_that_names_them(start: Any, end: Any) -> None:
    segmentation = build([layer_row("M", "ann", [["seg-1", start, end]])])
    source = build([pair_row("M", "a1", "a2", "T", [[0, 1, 0, 1], [start, end, 0, 1]])])
    hit = build([pair_row("M", "a1", "a2", "T", [[0, 1, start, end]])])
    assert "'seg-1'" in segmentation.problem
    for page in (segmentation, source, hit):
        assert page.problem.startswith("malformed graph data")
        assert "manifestation 'M'" in page.problem
        assert not page.pairs
    for page in (source, hit):
        assert "'a1' - 'a2'" in page.problem


@pytest.mark.parametrize(
    "malformed",
    [
        layer_row("M", "ann", [["se\0g", 0, 1]]),
        layer_row("M", "ann", [[17, 0, 1]]),
        pair_row("M", "a1", "a2", "T\0", [[0, 1, 0, 1]]),
    ],
)
def test_ids_that_a_result_cannot_hold_are_a_problem(malformed: list[Any]) -> None:
    assert "malformed graph data" in build([malformed]).problem


def test_an_annotation_without_an_id_is_a_problem_as_pairs_are_ordered_by_it() -> None:
    nameless = pair_row("M", "a1", "a2", "T", [[0, 1, 0, 1]])
    nameless[3] = None
    page = build([nameless, pair_row("M", "a1", "a2", "T", [[0, 1, 0, 1]])])
    assert "alignment None - 'a2' of manifestation 'M' has an id that is not text" in page.problem


def test_of_several_problems_the_same_one_is_told_whatever_the_order() -> None:
    rows = [
        pair_row("M", "a1", "a2", "T", [[7, 5, 0, 1]]),
        pair_row("M", "b1", "b2", "T", [[7, 5, 0, 1]]),
        layer_row("M", "ann", [["seg-1", -1, 0]]),
    ]
    assert {build(list(drawn)).problem for drawn in permutations(rows)} == {
        "malformed graph data: segment 'seg-1' of manifestation 'M' has the span [-1, 0)"
    }


@unhurried
@given(st.randoms(use_true_random=False))
def test_pages_are_the_same_in_whatever_order_their_rows_come(random: Random) -> None:
    rows = [
        pair_row("M", "b1", "b2", "U", [[0, 1, 0, 1]]),
        pair_row("M", "a1", "a2", "T", [[0, 1, 0, 1]]),
        layer_row("M", "two", [["s2", 5, 9], ["s1", 0, 5]]),
        layer_row("M", "one", [["s1", 0, 5], ["s0", 0, 1]]),
        pair_row("M", "c1", "c2", "W", [[0, 1, 0, 1]]),
        pair_row("M", "c1", "c2", "V", [[0, 1, 0, 1]]),
        end_row("M"),
        pair_row("N", "b2", "b1", "M", [[0, 1, 0, 1]]),
        end_row("N"),
        end_row("nowhere", exists=False),
    ]
    random.shuffle(rows)
    pages = build_pages(iter(rows), 7, WarnOnce())
    assert {name: page.exists for name, page in pages.items()} == {"M": True, "N": True, "nowhere": False}
    assert [pair.target for pair in pages["M"].pairs] == ["T", "U", "V", "W"]
    assert [pair.target for pair in pages["N"].pairs] == ["M"]
    assert pages["M"].segmentation == segmentation_of([("s0", 0, 1), ("s1", 0, 5), ("s2", 5, 9)])


def test_a_problem_stays_short() -> None:
    page = build([layer_row("M", "ann", [["s", "x" * 10_000, 1]])])
    assert len(page.problem) < 300


@unhurried
@given(st.permutations([(0, 10), (None, 10), (0, None), (None, None), (20, 30)]))
def test_segments_without_a_span_are_skipped_with_one_warning(drawn: list[tuple[Any, Any]]) -> None:
    warned: list[str] = []
    spans = [[*span, 0, 1] for span in drawn] + [[0, 5, None, 1], [0, 5, 0, None]]
    segments = [[f"s{at}", start, end] for at, (start, end) in enumerate(drawn)]
    page = build([pair_row("M", "a1", "a2", "T", spans), layer_row("M", "ann", segments)], warn=warned.append)
    assert not page.problem
    assert len(page.segmentation) == 2
    assert page.pairs[0].reach(0, 100) == (0, 1)
    assert page.pairs[0].reach(11, 19) is None
    assert len(set(warned)) == 2


def test_a_pair_of_nothing_but_segments_without_a_span_is_no_pair() -> None:
    assert build([pair_row("M", "a1", "a2", "T", [[None, None, 0, 1]])]).pairs == ()


def test_an_annotation_without_a_manifestation_is_skipped_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn = WarnOnce()
    rows = [pair_row("M", "a1", "lost", None, [[0, 1, 0, 1]]), pair_row("M", "a2", "a3", "T", [[0, 1, 0, 1]])]
    with caplog.at_level(logging.WARNING):
        pages = [build(rows, warn=warn) for _ in range(3)]
    assert [[pair.target for pair in page.pairs] for page in pages] == [["T"]] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "annotation 'lost' belongs to no manifestation; its alignment is skipped"
    ]


def test_a_pair_of_a_text_with_itself_is_left_out() -> None:
    assert build([pair_row("M", "a1", "a2", "M", [[0, 1, 0, 1]])]).pairs == ()


def test_warnings_are_remembered_within_bounds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pages.build.MAX_REMEMBERED_WARNINGS", 2)
    warn = WarnOnce()
    with caplog.at_level(logging.WARNING):
        for text in ("a", "b", "a", "c", "c", "a"):
            warn(text)
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "c", "a"]


def test_a_row_of_another_kind_is_a_bug_that_shows() -> None:
    with pytest.raises(ValueError, match="'pairs'"):
        build([["M", True, "pairs", "a1", "a2", "T", []]])
