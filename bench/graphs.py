"""Families in the benchmark's graph: generated and loaded once, then found again by later runs.

Invariant: a family whose marker stands in the graph is there whole, made by this very generator: the marker is
written last, and its name holds a checksum of the generator's source and arguments. All names are equally long, so
that results of different families compare.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, NamedTuple

import neo4j

from bench.generate import Size, generate_family
from devstack.families import load_family, make_constraints

FIND_MARKER: LiteralString = "MATCH (f:BenchFamily {name: $name}) RETURN f.name"
SET_MARKER: LiteralString = "MERGE (f:BenchFamily {name: $name}) SET f.size = $size"
SEGMENTS: LiteralString = """
MATCH (m:Manifestation {id: $id})<-[:ANNOTATION_OF]-(a:Annotation)
WHERE EXISTS { (a)-[:HAS_TYPE]->(:AnnotationType {name: 'segmentation'}) }
MATCH (a)<-[:SEGMENTATION_OF]-(s:Segment)
RETURN s.id AS id, s.span_start AS start, s.span_end AS end ORDER BY start, id
"""


class SegmentSpan(NamedTuple):
    """A segment of a root: half-open, in characters."""

    id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Text:
    """The root of a loaded family, from which jobs are made."""

    manifestation: str
    segments: tuple[SegmentSpan, ...]

    def pick(self, count: int) -> list[SegmentSpan]:
        """So many segments, evenly spread over the text."""
        assert count <= len(self.segments), f"{count} of {len(self.segments)} segments"
        return [self.segments[len(self.segments) * at // count] for at in range(count)]


def family_name(size: Size, seed: int) -> str:
    """Of nine characters, different for different families."""
    source = Path(__file__).with_name("generate.py").read_bytes()
    return f"b{zlib.crc32(repr((size, seed)).encode(), zlib.crc32(source)):08x}"


def provide(driver: neo4j.Driver, size: Size, seed: int, say: Callable[[str], None]) -> Text:
    """The family in the graph, loaded now if it is not there; minutes for a large one."""
    make_constraints(driver)
    name = family_name(size, seed)
    root = f"{name}-000"
    if not driver.execute_query(FIND_MARKER, name=name).records:
        say(f"loading a family of {size.texts} texts, {size.segments_per_text:,} segments a text, ...")
        family = generate_family(*size[:3], seed=seed, reach=size.reach, name=name)
        assert family.manifestations[0] == root
        load_family(driver, family)
        driver.execute_query(SET_MARKER, name=name, size=list(size))
        say(f"  {len(family.segments):,} segments of all layers, {len(family.aligned_segments):,} alignments")
    rows = driver.execute_query(SEGMENTS, id=root).records
    return Text(root, tuple(SegmentSpan(row["id"], row["start"], row["end"]) for row in rows))
