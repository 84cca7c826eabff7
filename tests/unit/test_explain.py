"""An explained walk says what the walk did: the same answer, and a reason for every pair."""

import json
from pathlib import Path

import pytest
from hypothesis import given

from app.core.segments import Start
from app.errors import PermanentError
from app.jobs.explaining import describe_explanation, explanation_fields
from app.pages.explain import explain
from app.pages.walk import walk_together
from devstack.families import Family
from tests.support.answers import canonical, decoded, example_files, read_example
from tests.support.graphs import MemoryGraph, unhurried
from tests.support.strategies import Question, asked_families

SMALL = next(path for path in example_files() if path.stem == "small_family")


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_every_example_is_explained_with_the_stored_answer(path: Path) -> None:
    family, questions = read_example(path)
    graph = MemoryGraph(family)
    assert questions
    for asked in questions:
        explained = explain(asked.manifestation_id, asked.start, asked.end, graph)
        fields = explanation_fields(explained)
        assert canonical(fields["related"]) == canonical(asked.related), asked.segment_id
        (walked,) = walk_together([Start(asked.manifestation_id, asked.start, asked.end, 0, 1)], graph)
        assert fields["related"] == decoded(walked)
        carried = [(step["target"], step["carried"]) for step in fields["steps"] if step["carried"]]
        assert [target for target, _ in carried] == [entry["manifestation_id"] for entry in asked.related]


@unhurried
@given(asked_families())
def test_every_step_follows_from_those_before_it(asked: tuple[Family, list[Question]]) -> None:
    family, questions = asked
    graph = MemoryGraph(family)
    for manifestation_id, start, end in questions:
        reached = {manifestation_id: {"start": start, "end": end}}
        level = 1
        for step in explanation_fields(explain(manifestation_id, start, end, graph))["steps"]:
            assert level <= step["level"] <= level + 1
            level = step["level"]
            assert reached[step["manifestation_id"]] == step["span"], "it goes on with what was carried there"
            if step["passed_over"] == "visited":
                assert step["target"] in reached
                continue
            assert step["target"] not in reached
            assert bool(step["hits"]) == (step["carried"] is not None)
            if step["hits"]:
                reached[step["target"]] = step["carried"]
                assert step["carried"] == {
                    "start": min(hit["aligned"]["start"] for hit in step["hits"]),
                    "end": max(hit["aligned"]["end"] for hit in step["hits"]),
                }
                assert all(
                    hit["span"]["start"] < step["span"]["end"] and hit["span"]["end"] > step["span"]["start"]
                    for hit in step["hits"]
                )


def test_a_person_reads_pairs_hits_spans_and_reasons() -> None:
    family, _ = read_example(SMALL)
    lines = list(describe_explanation(explain("root-bo", 0, 40, MemoryGraph(family))))
    assert lines[0] == "start: root-bo [0, 40)"
    assert lines[1] == "level 1"
    text = "\n".join(lines)
    assert "hit: [" in text
    assert "carried on: translation-en [0, 60), 1 of its segments overlaps it" in text
    assert "passed over: root-bo was visited before" in text
    assert "which has no segmentation" in text
    assert lines[-1].startswith("related, in this order: translation-en, ")


def test_an_unknown_text_is_an_error() -> None:
    family, _ = read_example(SMALL)
    with pytest.raises(PermanentError, match="'nowhere' does not exist"):
        explain("nowhere", 0, 1, MemoryGraph(family))


def test_a_span_outside_the_text_is_told_apart() -> None:
    family, _ = read_example(SMALL)
    outside = explain("root-bo", 10**6, 10**6 + 1, MemoryGraph(family))
    assert not outside.touches_segment
    assert json.loads(outside.related.encode()) == []
    assert list(describe_explanation(outside))[-1] == "related: nothing"
    assert explain("root-bo", 0, 1, MemoryGraph(family)).touches_segment
