"""Loading a family into real Neo4j: the graph holds exactly it, however often and after whatever accident."""

from collections.abc import Callable
from dataclasses import replace

import neo4j
import pytest

from devstack.families import (
    SMALL_FAMILY_PATH,
    Annotation,
    Family,
    Segment,
    empty_graph,
    load_family,
    undirected,
)
from tests.support.answers import example_files

SMALL = Family.from_json(SMALL_FAMILY_PATH)
DAMAGED = replace(
    SMALL,
    orphan_annotations=(("orphan", "alignment"),),
    segments=(*SMALL.segments, Segment("orphan.0", "orphan", 0, 7)),
    spanless_segments=(("spanless", "orphan"), ("spanless too", SMALL.annotations[0].id)),
    aligned_annotations=(*SMALL.aligned_annotations, ("orphan", SMALL.annotations[-1].id)),
    aligned_segments=(*SMALL.aligned_segments, ("spanless", "orphan.0")),
)


@pytest.fixture
def empty_driver(driver: neo4j.Driver) -> neo4j.Driver:
    """The tests' Neo4j with nothing in it."""
    empty_graph(driver)
    return driver


def values(driver: neo4j.Driver, query: str) -> set[tuple[object, ...]]:
    """The rows of a query; none of them twice."""
    rows = [tuple(record.values()) for record in driver.execute_query(query).records]
    assert len(rows) == len(set(rows))
    return set(rows)


def assert_holds(driver: neo4j.Driver, family: Family) -> None:
    """The whole graph is this family, and each relation is there once."""
    assert values(driver, "MATCH (n:Manifestation) RETURN n.id") == {(id_,) for id_ in family.manifestations}
    annotations = values(
        driver,
        "MATCH (t:AnnotationType)<-[:HAS_TYPE]-(a:Annotation) OPTIONAL MATCH (a)-[:ANNOTATION_OF]->(m:Manifestation)"
        " RETURN a.id, m.id, t.name",
    )
    orphans = {(id_, None, name) for id_, name in family.orphan_annotations}
    assert annotations == {tuple(row) for row in family.annotations} | orphans
    segments = values(
        driver,
        "MATCH (s:Segment)-[:SEGMENTATION_OF]->(a:Annotation) RETURN s.id, a.id, s.span_start, s.span_end",
    )
    spanless = {(id_, annotation, None, None) for id_, annotation in family.spanless_segments}
    assert segments == {tuple(row) for row in family.segments} | spanless
    for label, pairs in (("Annotation", family.aligned_annotations), ("Segment", family.aligned_segments)):
        found = values(driver, f"MATCH (a:{label})-[:ALIGNED_TO]->(b:{label}) RETURN a.id, b.id")
        assert found == set(undirected(pairs))


@pytest.mark.parametrize("family", [SMALL, DAMAGED], ids=["small", "damaged"])
def test_loading_twice_is_loading_once(empty_driver: neo4j.Driver, family: Family) -> None:
    for _ in range(2):
        load_family(empty_driver, family)
        assert_holds(empty_driver, family)


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_examples_load(load_graph: Callable[[Family], None], driver: neo4j.Driver, path: str) -> None:
    family = Family.from_json(path)
    load_graph(family)
    assert_holds(driver, family)


def test_a_load_cut_short_is_completed(empty_driver: neo4j.Driver) -> None:
    load_family(empty_driver, replace(SMALL, segments=SMALL.segments[:20], aligned_segments=()))
    load_family(empty_driver, SMALL)
    assert_holds(empty_driver, SMALL)


def test_a_pair_given_both_ways_is_stored_once(empty_driver: neo4j.Driver) -> None:
    twice = replace(
        SMALL,
        aligned_annotations=SMALL.aligned_annotations
        + tuple((right, left) for left, right in SMALL.aligned_annotations),
        aligned_segments=SMALL.aligned_segments + SMALL.aligned_segments[:3],
    )
    for _ in range(2):
        load_family(empty_driver, twice)
        assert_holds(empty_driver, SMALL)


def test_ids_and_self_alignments_of_any_kind(empty_driver: neo4j.Driver) -> None:
    odd = ["'", '"', "\\", "` }) DETACH DELETE n //", "ཀ～𐐷", " ", "$rows"]
    family = Family(
        manifestations=tuple(odd),
        annotations=tuple(Annotation(id_, id_, "alignment") for id_ in odd),
        segments=tuple(Segment(id_, id_, number, number) for number, id_ in enumerate(odd)),
        aligned_annotations=tuple((id_, id_) for id_ in odd),
        aligned_segments=tuple((id_, id_) for id_ in odd),
    )
    for _ in range(2):
        load_family(empty_driver, family)
        assert_holds(empty_driver, family)


def test_the_four_constraints_are_made_and_outlive_the_graph(empty_driver: neo4j.Driver) -> None:
    load_family(empty_driver, SMALL)
    empty_graph(empty_driver)
    assert values(empty_driver, "MATCH (n) RETURN n") == set()
    constraints = values(
        empty_driver,
        "SHOW CONSTRAINTS YIELD labelsOrTypes, properties, type"
        " RETURN labelsOrTypes[0] AS label, properties[0] AS property, type",
    )
    assert {("Manifestation", "id"), ("Annotation", "id"), ("Segment", "id"), ("AnnotationType", "name")} <= {
        (label, name) for label, name, _ in constraints
    }


def test_a_second_family_leaves_the_first(empty_driver: neo4j.Driver) -> None:
    other = Family(
        ("other",), (Annotation("other.s", "other", "segmentation"),), (Segment("other.s.0", "other.s", 0, 5),), (), ()
    )
    load_family(empty_driver, SMALL)
    load_family(empty_driver, other)
    both = replace(
        SMALL,
        manifestations=SMALL.manifestations + other.manifestations,
        annotations=SMALL.annotations + other.annotations,
        segments=SMALL.segments + other.segments,
    )
    assert_holds(empty_driver, both)
