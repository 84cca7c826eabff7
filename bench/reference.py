"""The walk exactly as docs/formats.md defines it: the oracle of the tests, and what bench/naive.py runs.

Invariant: nothing here is clever. Spans are compared one by one, and nothing is imported from `app`, so a
mistake there cannot be repeated here. Frozen: it changes only when the definition does.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from devstack.families import Annotation, Family, Segment


class Pair(NamedTuple):
    """Two alignment annotations that are ALIGNED_TO each other, `a1` of the text at hand, `a2` of `target`."""

    a1: str
    a2: str
    target: str


class Graph(Protocol):
    """The three questions that the walk asks, one a step."""

    def pairs_of(self, manifestation: str) -> list[Pair]:
        """The pairs of a manifestation, in any order; KeyError when there is no such manifestation."""

    def hits(self, a1: str, a2: str, start: int, end: int) -> list[tuple[int, int]]:
        """The spans of a2's segments that are ALIGNED_TO a segment of a1 overlapping `[start, end)`."""

    def segmentation(self, manifestation: str, start: int, end: int) -> list[Segment]:
        """The segments of the manifestation's segmentations that overlap `[start, end)`, in any order."""


def walk(graph: Graph, manifestation_id: str, start: int, end: int) -> list[dict[str, Any]]:
    """The result JSON for the span `[start, end)` of a manifestation; KeyError when there is no such one."""
    visited = {manifestation_id}
    queue = deque([(manifestation_id, start, end)])
    result: list[dict[str, Any]] = []
    while queue:
        m, s, e = queue.popleft()
        for a1, a2, target in sorted(graph.pairs_of(m)):
            hits = graph.hits(a1, a2, s, e)
            if not hits:
                continue
            if target in visited:
                continue
            visited.add(target)
            lo, hi = min(start for start, _ in hits), max(end for _, end in hits)
            segments = sorted(graph.segmentation(target, lo, hi), key=lambda row: (row.start, row.id))
            result.append({"manifestation_id": target, "segments": [as_json(row) for row in segments]})
            queue.append((target, lo, hi))
    return result


def reference_walk(family: Family, manifestation_id: str, start: int, end: int) -> list[dict[str, Any]]:
    """`walk` over a family in memory, whose index is kept for the next question about the same family."""
    return walk(index_of(family), manifestation_id, start, end)


def as_json(segment: Segment) -> dict[str, Any]:
    """A segment in the result JSON's shape."""
    return {"segment_id": segment.id, "span": {"start": segment.start, "end": segment.end}}


def overlap(segment: Segment, start: int, end: int) -> bool:
    """Whether two half-open spans overlap, as the definition has it, zero-length ones included."""
    return segment.start < end and segment.end > start


def both_ways(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """For each id what it is ALIGNED_TO, whichever way the relation is stored."""
    aligned: dict[str, set[str]] = defaultdict(set)
    for left, right in pairs:
        aligned[left].add(right)
        aligned[right].add(left)
    return aligned


class Index:
    """A family by id. What it does not find, an orphan annotation or a spanless segment, does not exist."""

    def __init__(self, family: Family) -> None:
        self.annotations: dict[str, Annotation] = {row.id: row for row in family.annotations}
        self.annotations_of: dict[str, list[Annotation]] = {id_: [] for id_ in family.manifestations}
        for annotation in family.annotations:
            self.annotations_of[annotation.manifestation].append(annotation)
        self.segments: dict[str, Segment] = {row.id: row for row in family.segments}
        self.segments_of: dict[str, list[Segment]] = defaultdict(list)
        for segment in family.segments:
            self.segments_of[segment.annotation].append(segment)
        self.aligned_annotations = both_ways(family.aligned_annotations)
        self.aligned_segments = both_ways(family.aligned_segments)

    def pairs_of(self, manifestation: str) -> list[Pair]:
        """See `Graph`."""
        return [
            Pair(a1.id, a2, self.annotations[a2].manifestation)
            for a1 in self.annotations_of[manifestation]
            for a2 in self.aligned_annotations.get(a1.id, ())
            if a1.type == "alignment" and a2 in self.annotations and self.annotations[a2].type == "alignment"
        ]

    def hits(self, a1: str, a2: str, start: int, end: int) -> list[tuple[int, int]]:
        """See `Graph`."""
        others = [
            self.segments[other]
            for segment in self.segments_of.get(a1, ())
            if overlap(segment, start, end)
            for other in self.aligned_segments.get(segment.id, ())
            if other in self.segments
        ]
        return [(other.start, other.end) for other in others if other.annotation == a2]

    def segmentation(self, manifestation: str, start: int, end: int) -> list[Segment]:
        """See `Graph`."""
        return [
            segment
            for annotation in self.annotations_of[manifestation]
            if annotation.type == "segmentation"
            for segment in self.segments_of.get(annotation.id, ())
            if overlap(segment, start, end)
        ]


@lru_cache(maxsize=2)
def index_of(family: Family) -> Index:
    """The family's index."""
    return Index(family)
