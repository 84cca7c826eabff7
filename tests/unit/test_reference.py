"""The oracle itself: it gives the independent implementation's answer to every example question."""

from pathlib import Path

import pytest

from bench.reference import reference_walk
from devstack.families import Family
from tests.support.answers import canonical, example_files, read_example


def test_there_are_example_files() -> None:
    assert len(example_files()) >= 7


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_every_example_answer(path: Path) -> None:
    family, questions = read_example(path)
    for question in questions:
        related = reference_walk(family, question.manifestation_id, question.start, question.end)
        assert canonical(related) == canonical(question.related), question.segment_id


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_segments_come_by_start_and_id(path: Path) -> None:
    family, questions = read_example(path)
    for question in questions:
        for entry in reference_walk(family, question.manifestation_id, question.start, question.end):
            keys = [(row["span"]["start"], row["segment_id"]) for row in entry["segments"]]
            assert keys == sorted(keys)


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_a_job_is_cut_as_the_examples_are(path: Path) -> None:
    family, questions = read_example(path)
    cut = {(m, s.id, s.start, s.end) for m in family.manifestations for s in family.job_segments(m)}
    assert cut == {question[:4] for question in questions}


def test_unknown_manifestation_is_an_error() -> None:
    with pytest.raises(KeyError):
        reference_walk(Family((), (), (), (), ()), "nobody", 0, 1)
