"""The traced path against the walk: the same texts and spans in the same order, each reached from one before it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given

from app.errors import PermanentError
from app.pages.page import Page
from app.pages.path import as_tree, path_to, read_pages, trace
from app.pages.reading import Reading
from app.pages.walk import Visit, walk
from devstack.families import Family
from tests.support.answers import example_files, read_example
from tests.support.graphs import MemoryGraph, pages_of, unhurried
from tests.support.strategies import Question, asked_families


def visits_of(start: Visit, pages: Mapping[str, Page]) -> list[Visit]:
    steps = walk(*start)
    next(steps)
    while True:
        try:
            steps.send(pages)
        except StopIteration as finished:
            return list(finished.value)


def assert_traced(start: Visit, pages: Mapping[str, Page]) -> None:
    """The steps are the walk's visits, and each begins where an earlier one ended, by a pair that is there."""
    steps = trace(start, pages)
    assert [step.visit for step in steps] == visits_of(start, pages)
    reached = {start.target: start}
    by_target = {step.visit.target: step for step in steps}
    tree = as_tree(steps)
    assert sorted(tree) == sorted(steps)
    for at, step in enumerate(tree):
        path = path_to(step, by_target)
        assert len(path) == 1 or path[-2] in tree[:at]
        assert at == 0 or path[:-1] == path_to(tree[at - 1], by_target)[: len(path) - 1]
    for step in steps:
        assert reached[step.source.target] == step.source
        assert any(
            (pair.annotation, pair.other, pair.target) == (step.annotation, step.other, step.visit.target)
            and pair.reach(step.source.low, step.source.high) == (step.visit.low, step.visit.high)
            for pair in pages[step.source.target].pairs
        )
        reached[step.visit.target] = step.visit
        path = path_to(step, by_target)
        assert path[0].source == start
        assert path[-1] == step
        assert [each.visit for each in path[:-1]] == [each.source for each in path[1:]]


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_every_example_is_traced_as_it_is_walked(path: Path) -> None:
    family, questions = read_example(path)
    pages = pages_of(family)
    for question in questions:
        start = Visit(question.manifestation_id, question.start, question.end)
        assert_traced(start, pages)
        named = [entry["manifestation_id"] for entry in question.related]
        assert [step.visit.target for step in trace(start, pages)] == named


@unhurried
@given(asked_families(damaged=True))
def test_any_walk_is_traced(asked: tuple[Family, list[Question]]) -> None:
    family, questions = asked
    pages = pages_of(family)
    for question in questions:
        assert_traced(Visit(*question), pages)


def test_pages_are_read_a_level_at_a_time() -> None:
    family, questions = read_example(example_files()[-1])
    for question in questions:
        graph = MemoryGraph(family)
        start = Visit(question.manifestation_id, question.start, question.end)
        pages = read_pages(start, graph, 7, Reading(8))
        assert visits_of(start, pages) == visits_of(start, pages_of(family))
        asked_for = [name for load in graph.loads for name in load]
        assert sorted(asked_for) == sorted(pages)
        assert len(asked_for) == len(set(asked_for))


def test_a_text_that_does_not_exist_is_one_page_that_says_so() -> None:
    pages = read_pages(Visit("nowhere", 0, 1), MemoryGraph(Family((), (), (), (), ())), 0, Reading(1))
    assert [page.exists for page in pages.values()] == [False]


def test_data_that_cannot_be_used_is_told() -> None:
    pages = {"m": Page("m", 0, True, problem="the spans of 'm' are no spans")}
    with pytest.raises(PermanentError, match="no spans"):
        trace(Visit("m", 0, 1), pages)
