"""A text family: a whole graph as plain data, and its way into Neo4j.

Invariant: a `Family` holds exactly what docs/formats.md calls the graph, in the JSON shape of the
example files, and never changes once made; loading it twice leaves the same graph as loading it once.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, Self, cast

if TYPE_CHECKING:
    from neo4j import Driver

SMALL_FAMILY_PATH = Path(__file__).parent / "data" / "small_family.json"
ROWS_PER_QUERY = 10_000
INDEX_WAIT_SECONDS = 300


class Annotation(NamedTuple):
    """One layer of segments over a manifestation; `type` is the name of its AnnotationType."""

    id: str
    manifestation: str
    type: str


class Segment(NamedTuple):
    """A half-open span `[start, end)`, in characters of its annotation's manifestation."""

    id: str
    annotation: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Texts, their annotations and segments, and what is ALIGNED_TO what (pairs of ids, undirected).

    The last two fields hold damage that a walk must step over; the example files have none of it.
    Hashed and compared by identity, so that an index of it can be cached; a changed family is a new one
    (`dataclasses.replace`).
    """

    manifestations: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    segments: tuple[Segment, ...]
    aligned_annotations: tuple[tuple[str, str], ...]
    aligned_segments: tuple[tuple[str, str], ...]
    orphan_annotations: tuple[tuple[str, str], ...] = ()
    """(id, type) of annotations that belong to no manifestation."""
    spanless_segments: tuple[tuple[str, str], ...] = ()
    """(id, annotation) of segments without a span."""

    @classmethod
    def from_json(cls, path: Path | str) -> Self:
        """The family in a file: a graph as such, or an example file with its graph under "graph"."""
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls.from_graph(document.get("graph", document))

    @classmethod
    def from_graph(cls, graph: dict[str, Any]) -> Self:
        """The family in the decoded "graph" object of an example file."""
        return cls(
            manifestations=tuple(graph["manifestations"]),
            annotations=tuple(Annotation(**row) for row in graph["annotations"]),
            segments=tuple(Segment(**row) for row in graph["segments"]),
            aligned_annotations=tuple((left, right) for left, right in graph["aligned_annotations"]),
            aligned_segments=tuple((left, right) for left, right in graph["aligned_segments"]),
        )

    def to_graph(self) -> dict[str, Any]:
        """The inverse of `from_graph`; damage has no place in that shape and is left out."""
        return {
            "manifestations": list(self.manifestations),
            "annotations": [row._asdict() for row in self.annotations],
            "segments": [row._asdict() for row in self.segments],
            "aligned_annotations": [list(pair) for pair in self.aligned_annotations],
            "aligned_segments": [list(pair) for pair in self.aligned_segments],
        }

    def job_segments(self, manifestation: str) -> list[Segment]:
        """What a job is cut from: the manifestation's segmentation or, without one, its pagination."""
        for wanted in ("segmentation", "pagination"):
            layers = {a.id for a in self.annotations if a.manifestation == manifestation and a.type == wanted}
            if layers:
                return [segment for segment in self.segments if segment.annotation in layers]
        return []


CONSTRAINTS: tuple[LiteralString, ...] = (
    "CREATE CONSTRAINT manifestation_id IF NOT EXISTS FOR (n:Manifestation) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT annotation_id IF NOT EXISTS FOR (n:Annotation) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT segment_id IF NOT EXISTS FOR (n:Segment) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT annotation_type_name IF NOT EXISTS FOR (n:AnnotationType) REQUIRE n.name IS UNIQUE",
)

MERGE_TYPES: LiteralString = "UNWIND $rows AS row MERGE (:AnnotationType {name: row})"
MERGE_MANIFESTATIONS: LiteralString = "UNWIND $rows AS row MERGE (:Manifestation {id: row})"
MERGE_ANNOTATIONS: LiteralString = """
UNWIND $rows AS row
MATCH (m:Manifestation {id: row[1]})
MATCH (t:AnnotationType {name: row[2]})
MERGE (a:Annotation {id: row[0]})
MERGE (a)-[:ANNOTATION_OF]->(m)
MERGE (a)-[:HAS_TYPE]->(t)
"""
MERGE_ORPHANS: LiteralString = """
UNWIND $rows AS row
MATCH (t:AnnotationType {name: row[1]})
MERGE (a:Annotation {id: row[0]})
MERGE (a)-[:HAS_TYPE]->(t)
"""
MERGE_SEGMENTS: LiteralString = """
UNWIND $rows AS row
MATCH (a:Annotation {id: row[1]})
MERGE (s:Segment {id: row[0]}) SET s.span_start = row[2], s.span_end = row[3]
MERGE (s)-[:SEGMENTATION_OF]->(a)
"""
CREATE_SEGMENTS: LiteralString = """
UNWIND $rows AS row
MATCH (a:Annotation {id: row[1]})
CREATE (:Segment {id: row[0], span_start: row[2], span_end: row[3]})-[:SEGMENTATION_OF]->(a)
"""
MERGE_SPANLESS: LiteralString = """
UNWIND $rows AS row
MATCH (a:Annotation {id: row[1]})
MERGE (s:Segment {id: row[0]})
MERGE (s)-[:SEGMENTATION_OF]->(a)
"""
# An undirected MERGE finds the relation in either direction and makes it in one.
MERGE_ALIGNED_ANNOTATIONS: LiteralString = """
UNWIND $rows AS row
MATCH (left:Annotation {id: row[0]}) MATCH (right:Annotation {id: row[1]})
MERGE (left)-[:ALIGNED_TO]-(right)
"""
MERGE_ALIGNED_SEGMENTS: LiteralString = """
UNWIND $rows AS row
MATCH (left:Segment {id: row[0]}) MATCH (right:Segment {id: row[1]})
MERGE (left)-[:ALIGNED_TO]-(right)
"""
CREATE_ALIGNED_SEGMENTS: LiteralString = """
UNWIND $rows AS row
MATCH (left:Segment {id: row[0]}) MATCH (right:Segment {id: row[1]})
CREATE (left)-[:ALIGNED_TO]->(right)
"""
ANY_KNOWN: LiteralString = """
RETURN EXISTS { MATCH (m:Manifestation) WHERE m.id IN $manifestations }
    OR EXISTS { MATCH (a:Annotation) WHERE a.id IN $annotations } AS known
"""
# By hand in small transactions: CALL IN TRANSACTIONS first gathers every node, too much for a small heap.
DELETE_SEGMENTS: LiteralString = "MATCH (n:Segment) WITH n LIMIT $rows DETACH DELETE n RETURN count(*) AS gone"
DELETE_REST: LiteralString = "MATCH (n) WITH n LIMIT $rows DETACH DELETE n RETURN count(*) AS gone"


def load_family(driver: "Driver", family: Family, *, database: str | None = None) -> None:
    """Bring the graph to hold `family`, beside whatever else it holds, with the unique constraints in place.

    Idempotent. A family of which nothing is known yet is created without looking for each row, which is
    several times faster; a load that was cut short has left its manifestations, so the next one merges.
    """
    make_constraints(driver, database=database)
    known = _any_known(driver, family, database)
    types = {row.type for row in family.annotations} | {name for _, name in family.orphan_annotations}
    steps: list[tuple[LiteralString, Sequence[Any]]] = [
        (MERGE_TYPES, sorted(types)),
        (MERGE_MANIFESTATIONS, family.manifestations),
        (MERGE_ANNOTATIONS, family.annotations),
        (MERGE_ORPHANS, family.orphan_annotations),
        (MERGE_SEGMENTS if known else CREATE_SEGMENTS, family.segments),
        (MERGE_SPANLESS, family.spanless_segments),
        (MERGE_ALIGNED_ANNOTATIONS, undirected(family.aligned_annotations)),
        (MERGE_ALIGNED_SEGMENTS if known else CREATE_ALIGNED_SEGMENTS, undirected(family.aligned_segments)),
    ]
    for query, rows in steps:
        for batch in _parameter_batches(rows):
            driver.execute_query(query, rows=batch, database_=database)


def make_constraints(driver: "Driver", *, database: str | None = None) -> None:
    """Make the four unique constraints where they are missing and wait until their indexes serve."""
    for statement in CONSTRAINTS:
        driver.execute_query(statement, database_=database)
    driver.execute_query("CALL db.awaitIndexes($seconds)", seconds=INDEX_WAIT_SECONDS, database_=database)


def load_example(environment: Mapping[str, str]) -> Family:
    """Load the small family, with the text root-bo in it, into the Neo4j that the environment names."""
    from neo4j import GraphDatabase

    family = Family.from_json(SMALL_FAMILY_PATH)
    auth = (environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    with GraphDatabase.driver(environment["NEO4J_URI"], auth=auth) as driver:
        load_family(driver, family)
    return family


def empty_graph(driver: "Driver", *, database: str | None = None) -> None:
    """Delete every node and relation of the database; constraints stay. For the local stack's own only."""
    for query in (DELETE_SEGMENTS, DELETE_REST):
        while driver.execute_query(query, rows=ROWS_PER_QUERY, database_=database).records[0]["gone"]:
            pass


def undirected(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs, each only once in whichever direction, as first given and in that order."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for left, right in pairs:
        first.setdefault((left, right) if left <= right else (right, left), (left, right))
    return list(first.values())


def _any_known(driver: "Driver", family: Family, database: str | None) -> bool:
    records, _, _ = driver.execute_query(
        ANY_KNOWN,
        manifestations=list(family.manifestations),
        annotations=[row.id for row in family.annotations] + [id_ for id_, _ in family.orphan_annotations],
        database_=database,
    )
    return cast(bool, records[0]["known"])


def _parameter_batches(rows: Sequence[Any]) -> Iterator[list[Any]]:
    for batch in batched(rows, ROWS_PER_QUERY):
        yield [row if isinstance(row, str) else list(row) for row in batch]
