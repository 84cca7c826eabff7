"""What the builder makes of incomplete and of malformed data."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.page_builder import RawLayer, RawManifestation, RawPair, WarnOnce, build_page
from tests.graph_fixtures import unhurried

NAN = float("nan")


def raw(pairs: list[RawPair] | None = None, segments: list[Any] | None = None) -> RawManifestation:
    return RawManifestation("M", True, pairs or [], [RawLayer("ann", segments or [])])


@pytest.mark.parametrize(
    ("start", "end"),
    [("0", 10), (0, "10"), (0.0, 10.0), (NAN, 1), (True, 5), (-1, 5), (7, 5), ([0], 5), (b"0", 5)],
)
def test_malformed_spans_make_the_page_a_problem_that_names_them(start: Any, end: Any) -> None:
    segmentation = build_page(raw(segments=[["seg-1", start, end]]), 0, WarnOnce())
    source = build_page(raw([RawPair("a1", "a2", "T", [[0, 1, 0, 1], [start, end, 0, 1]])]), 0, WarnOnce())
    hit = build_page(raw([RawPair("a1", "a2", "T", [[0, 1, start, end]])]), 0, WarnOnce())
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
        raw(segments=[["se\0g", 0, 1]]),
        raw(segments=[[17, 0, 1]]),
        raw([RawPair("a1", "a2", "T\0", [[0, 1, 0, 1]])]),
    ],
)
def test_ids_that_a_result_cannot_hold_are_a_problem(malformed: RawManifestation) -> None:
    assert "malformed graph data" in build_page(malformed, 0, WarnOnce()).problem


def test_a_problem_stays_short() -> None:
    page = build_page(raw(segments=[["s", "x" * 10_000, 1]]), 0, WarnOnce())
    assert len(page.problem) < 300


@unhurried
@given(st.permutations([(0, 10), (None, 10), (0, None), (None, None), (20, 30)]))
def test_segments_without_a_span_are_skipped_with_one_warning(drawn: list[tuple[Any, Any]]) -> None:
    warned: list[str] = []
    spans = [[*span, 0, 1] for span in drawn] + [[0, 5, None, 1], [0, 5, 0, None]]
    segments = [[f"s{at}", start, end] for at, (start, end) in enumerate(drawn)]
    page = build_page(raw([RawPair("a1", "a2", "T", spans)], segments), 0, warned.append)
    assert not page.problem
    assert len(page.segmentation) == 2
    assert page.pairs[0].reach(0, 100) == (0, 1)
    assert page.pairs[0].reach(11, 19) is None
    assert len(set(warned)) == 2


def test_a_pair_of_nothing_but_segments_without_a_span_is_no_pair() -> None:
    assert build_page(raw([RawPair("a1", "a2", "T", [[None, None, 0, 1]])]), 0, WarnOnce()).pairs == ()


def test_an_annotation_without_a_manifestation_is_skipped_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn = WarnOnce()
    pairs = [RawPair("a1", "lost", None, [[0, 1, 0, 1]]), RawPair("a2", "a3", "T", [[0, 1, 0, 1]])]
    with caplog.at_level(logging.WARNING):
        pages = [build_page(raw(pairs), 0, warn) for _ in range(3)]
    assert [[pair.target for pair in page.pairs] for page in pages] == [["T"]] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "annotation 'lost' belongs to no manifestation; its alignment is skipped"
    ]


def test_a_pair_of_a_text_with_itself_is_left_out() -> None:
    assert build_page(raw([RawPair("a1", "a2", "M", [[0, 1, 0, 1]])]), 0, WarnOnce()).pairs == ()


def test_warnings_are_remembered_within_bounds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.page_builder.MAX_REMEMBERED_WARNINGS", 2)
    warn = WarnOnce()
    with caplog.at_level(logging.WARNING):
        for text in ("a", "b", "a", "c", "c", "a"):
            warn(text)
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "c", "a"]
