"""The walk against its definition: the example files, random families, and what surrounds a walk."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.segments import Start
from app.errors import OutageError, PermanentError
from app.pages.page import Page
from app.pages.reading import Reading
from app.pages.walk import RelatedTexts, walk, walk_together
from bench.reference import reference_walk
from devstack.families import Family
from tests.support.answers import canonical, decoded, example_files, read_example
from tests.support.graphs import MemoryGraph, build, layer_row, page_of, pages_of, pair_row, unhurried
from tests.support.strategies import Question, asked_families


class Given:
    """A `PageSource` of these pages."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        return {name: self._pages[name] for name in needs}


def relate(pages: Mapping[str, Page], manifestation_id: str, start: int, end: int) -> Any:
    """The decoded result of one walk over ready pages."""
    steps = walk(manifestation_id, start, end)
    frontier = next(steps)
    while True:
        try:
            frontier = steps.send({name: pages[name] for name in frontier})
        except StopIteration as finished:
            return decoded(RelatedTexts(finished.value, pages))


def start_at(manifestation_id: str, start: int = 0, end: int = 10, fresh_since_us: int = 0) -> Start:
    return Start(manifestation_id, start, end, fresh_since_us, read_at_us=fresh_since_us + 1)


def chain_of(*names: str) -> Family:
    """Texts of ten characters, each aligned with the next in one span."""
    pairs = list(pairwise(names))
    return Family.from_graph(
        {
            "manifestations": list(names),
            "annotations": [
                {"id": f"{left}-{right}.{side}", "manifestation": side, "type": "alignment"}
                for left, right in pairs
                for side in (left, right)
            ]
            + [{"id": f"{name}.segmentation", "manifestation": name, "type": "segmentation"} for name in names],
            "segments": [
                {
                    "id": f"{left}-{right}.{side}.0",
                    "annotation": f"{left}-{right}.{side}",
                    "start": 0,
                    "end": 10,
                }
                for left, right in pairs
                for side in (left, right)
            ]
            + [{"id": f"{name}.0", "annotation": f"{name}.segmentation", "start": 0, "end": 10} for name in names],
            "aligned_annotations": [[f"{left}-{right}.{left}", f"{left}-{right}.{right}"] for left, right in pairs],
            "aligned_segments": [[f"{left}-{right}.{left}.0", f"{left}-{right}.{right}.0"] for left, right in pairs],
        }
    )


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_every_example_is_answered_as_given(path: Path) -> None:
    family, questions = read_example(path)
    pages = pages_of(family)
    assert questions
    for question in questions:
        related = relate(pages, question.manifestation_id, question.start, question.end)
        assert canonical(related) == canonical(question.related), question.segment_id


@unhurried
@given(asked_families(damaged=True))
def test_any_walk_equals_the_definition(asked: tuple[Family, list[Question]]) -> None:
    family, questions = asked
    pages = pages_of(family)
    for manifestation_id, start, end in questions:
        assert relate(pages, manifestation_id, start, end) == reference_walk(family, manifestation_id, start, end)


@unhurried
@given(asked_families())
def test_walks_together_answer_what_each_answers_alone(asked: tuple[Family, list[Question]]) -> None:
    family, questions = asked
    graph = MemoryGraph(family)
    answers = walk_together([start_at(*question) for question in questions], graph)
    for (manifestation_id, start, end), answer in zip(questions, answers, strict=True):
        assert decoded(answer) == reference_walk(family, manifestation_id, start, end)


def test_one_load_serves_a_level_of_all_walks() -> None:
    family, questions = read_example(example_files()[-1])
    graph = MemoryGraph(family)
    starts = [start_at(row.manifestation_id, row.start, row.end) for row in questions]
    walk_together(starts, graph)
    asked_for = [name for load in graph.loads for name in load]
    assert len(asked_for) == len(set(asked_for)) == len(family.manifestations)
    assert len(graph.loads) < len(family.manifestations)


def test_a_page_is_asked_for_with_the_strictest_freshness_of_its_walks() -> None:
    asked: list[Mapping[str, int]] = []

    class Fresh(Given):
        def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
            asked.append(dict(needs))
            return {name: Page(name, max(needs.values()), True) for name in needs}

    walk_together([start_at("A", fresh_since_us=5), start_at("A", fresh_since_us=9), start_at("B")], Fresh({}))
    assert asked == [{"A": 9, "B": 0}]


def test_a_page_too_old_for_a_later_walk_is_asked_for_again() -> None:
    chain = chain_of("A", "B", "C")
    asked: list[Mapping[str, int]] = []

    class AsAsked(Given):
        def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
            asked.append(dict(needs))
            return {name: page_of(chain, name, needs[name]) for name in needs}

    walk_together([start_at("B", fresh_since_us=3), start_at("A", fresh_since_us=7)], AsAsked({}))
    assert asked == [{"B": 3, "A": 7}, {"C": 3, "B": 7}, {"C": 7}]


def test_an_unknown_start_fails_alone() -> None:
    graph = MemoryGraph(chain_of("A", "B"))
    unknown, known = walk_together([start_at("nowhere"), start_at("A")], graph)
    assert isinstance(unknown, PermanentError)
    assert "'nowhere' does not exist" in str(unknown)
    assert [entry["manifestation_id"] for entry in decoded(known)] == ["B"]


def test_a_text_without_alignments_has_no_relations() -> None:
    graph = MemoryGraph(chain_of("A"))
    (answer,) = walk_together([start_at("A")], graph)
    assert decoded(answer) == []


def test_a_target_that_vanished_between_two_reads_has_no_segments() -> None:
    pages = {"A": page_of(chain_of("A", "B"), "A"), "B": Page("B", 0, exists=False)}
    assert relate(pages, "A", 0, 10) == [{"manifestation_id": "B", "segments": []}]


def test_malformed_data_fails_only_the_walks_that_meet_it() -> None:
    broken = build([layer_row("B", "B.segmentation", [["b1", "0", 10]])])
    pages = {"A": page_of(chain_of("A", "B"), "A"), "B": broken, "C": page_of(chain_of("C", "D"), "C")}
    pages |= {"D": page_of(chain_of("C", "D"), "D")}
    through, beside = walk_together([start_at("A"), start_at("C")], Given(pages))
    assert isinstance(through, PermanentError)
    assert "'b1'" in str(through)
    assert "'B'" in str(through)
    assert [entry["manifestation_id"] for entry in decoded(beside)] == ["D"]


def test_an_outage_while_loading_passes_through() -> None:
    class Refusing(Given):
        def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
            raise OutageError("Neo4j", "refused")

    with pytest.raises(OutageError):
        walk_together([start_at("A")], Refusing({}))


def test_the_second_pair_may_reach_what_the_first_does_not() -> None:
    """A pair without hits leaves its target unvisited (docs/formats.md, "The walk")."""
    rows = [pair_row("A", "a1", "b1", "B", [[50, 60, 0, 1]]), pair_row("A", "a2", "b2", "B", [[0, 10, 20, 30]])]
    pages = {"A": build(rows), "B": page_of(chain_of("B"), "B")}
    steps = walk("A", 0, 10)
    next(steps)
    steps.send(pages)
    with pytest.raises(StopIteration) as finished:
        steps.send(pages)
    assert finished.value.value == [("B", 20, 30)]


@unhurried
@given(st.permutations(["a2", "a10", "a1", "～", "𐐷"]))
def test_pairs_are_followed_in_code_point_order(names: list[str]) -> None:
    page = build([pair_row("A", name, "x", f"to {name}", [[0, 10, 0, 10]]) for name in names])
    assert [pair.target for pair in page.pairs] == ["to a1", "to a10", "to a2", "to ～", "to 𐐷"]


@pytest.mark.parametrize("few", [0, 10**6])
def test_what_a_result_takes_is_told_before_it_is_made(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pages.walk.FEW_SEGMENTS", few)
    graph = MemoryGraph(chain_of("A", "B", "C"))
    (answer,) = walk_together([start_at("A")], graph)
    assert isinstance(answer, RelatedTexts)
    assert len(decoded(answer)) == 2
    assert len(answer.encode()) / 2 <= answer.size_bytes <= 4 * len(answer.encode())
