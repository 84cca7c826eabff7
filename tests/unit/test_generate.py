"""Generated families: repeatable, of the asked size, connected, and alike in their answers at every size."""

from statistics import mean

import pytest

from bench.generate import Shape, generate_family
from bench.reference import reference_walk
from devstack.families import Family

SHAPES: list[Shape] = ["star", "chain", "random"]


def result_sizes(family: Family) -> list[tuple[int, int]]:
    """For each segment of the root: its related texts, and the segments of all of them."""
    root = family.manifestations[0]
    walks = [reference_walk(family, root, row.start, row.end) for row in family.job_segments(root)]
    return [(len(walk), sum(len(entry["segments"]) for entry in walk)) for walk in walks]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_family(shape: Shape) -> None:
    graphs = [generate_family(5, 40, 30, shape, seed).to_graph() for seed in (7, 7, 8)]
    assert graphs[0] == graphs[1] != graphs[2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("aligned", [1, 20, 30, 47, 200])
def test_sizes_are_as_asked(shape: Shape, aligned: int) -> None:
    family = generate_family(11, 40, aligned, shape)
    counts = {row.id: 0 for row in family.annotations}
    for segment in family.segments:
        assert 0 <= segment.start < segment.end
        counts[segment.annotation] += 1
    assert len(family.manifestations) == 11
    assert len(family.aligned_annotations) > 10
    for annotation in family.annotations:
        assert counts[annotation.id] == (40 if annotation.type == "segmentation" else aligned)
    ids = [segment.id for segment in family.segments]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_text_is_reached(shape: Shape) -> None:
    family = generate_family(11, 40, 30, shape)
    assert {texts for texts, _ in result_sizes(family)} == {10}


@pytest.mark.parametrize("shape", SHAPES)
def test_finer_alignment_gives_results_of_exactly_the_same_size(shape: Shape) -> None:
    sizes = [result_sizes(generate_family(11, 40, aligned, shape)) for aligned in (30, 31, 100, 1000)]
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]


@pytest.mark.parametrize("shape", SHAPES)
def test_more_texts_give_results_of_about_the_same_size(shape: Shape) -> None:
    few, many = (result_sizes(generate_family(texts, 200, 150, shape)) for texts in (11, 80))
    for place in (0, 1):
        assert mean(size[place] for size in many) == pytest.approx(mean(size[place] for size in few), rel=0.15)


def test_families_of_different_names_share_no_id() -> None:
    one, other = (generate_family(3, 10, 8, name=name) for name in ("one", "other"))
    for part in ("manifestations", "annotations", "segments"):
        ids = [{row if isinstance(row, str) else row.id for row in getattr(f, part)} for f in (one, other)]
        assert not ids[0] & ids[1]
