"""The walk exactly as shared/spec/traversal.md defines it, in memory: the oracle of the tests.

Invariant: nothing here is clever. Spans are compared one by one, and nothing is imported from `app`, so a
mistake there cannot be repeated here. Frozen: it changes only when the definition does.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from devstack.families import Annotation, Family, Segment


def reference_walk(family: Family, manifestation_id: str, start: int, end: int) -> list[dict[str, Any]]:
    """The result JSON for the span `[start, end)` of a manifestation; KeyError when there is no such one."""
    graph = index_of(family)
    if manifestation_id not in graph.manifestations:
        raise KeyError(manifestation_id)
    visited = {manifestation_id}
    queue = deque([(manifestation_id, start, end)])
    result: list[dict[str, Any]] = []
    while queue:
        m, s, e = queue.popleft()
        for a1, a2 in graph.pairs_of(m):
            target = graph.annotations[a2].manifestation
            hits = graph.hits(a1, a2, s, e)
            if not hits or target in visited:
                continue
            visited.add(target)
            lo, hi = min(hit.start for hit in hits), max(hit.end for hit in hits)
            result.append({"manifestation_id": target, "segments": graph.segmentation(target, lo, hi)})
            queue.append((target, lo, hi))
    return result


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
        self.manifestations = set(family.manifestations)
        self.annotations: dict[str, Annotation] = {row.id: row for row in family.annotations}
        self.annotations_of: dict[str, list[Annotation]] = defaultdict(list)
        for annotation in family.annotations:
            self.annotations_of[annotation.manifestation].append(annotation)
        self.segments: dict[str, Segment] = {row.id: row for row in family.segments}
        self.segments_of: dict[str, list[Segment]] = defaultdict(list)
        for segment in family.segments:
            self.segments_of[segment.annotation].append(segment)
        self.aligned_annotations = both_ways(family.aligned_annotations)
        self.aligned_segments = both_ways(family.aligned_segments)

    def pairs_of(self, manifestation: str) -> list[tuple[str, str]]:
        """The alignment pairs (a1 of the manifestation, a2), in code-point order."""
        return sorted(
            (a1.id, a2)
            for a1 in self.annotations_of.get(manifestation, ())
            for a2 in self.aligned_annotations.get(a1.id, ())
            if a1.type == "alignment" and a2 in self.annotations and self.annotations[a2].type == "alignment"
        )

    def hits(self, a1: str, a2: str, start: int, end: int) -> list[Segment]:
        """The segments of a2 that are ALIGNED_TO a segment of a1 overlapping `[start, end)`."""
        return [
            self.segments[other]
            for segment in self.segments_of.get(a1, ())
            if overlap(segment, start, end)
            for other in self.aligned_segments.get(segment.id, ())
            if other in self.segments and self.segments[other].annotation == a2
        ]

    def segmentation(self, manifestation: str, start: int, end: int) -> list[dict[str, Any]]:
        """The segments of every segmentation of the manifestation that overlap, by (start, id)."""
        found = [
            segment
            for annotation in self.annotations_of.get(manifestation, ())
            if annotation.type == "segmentation"
            for segment in self.segments_of.get(annotation.id, ())
            if overlap(segment, start, end)
        ]
        found.sort(key=lambda segment: (segment.start, segment.id))
        return [{"segment_id": row.id, "span": {"start": row.start, "end": row.end}} for row in found]


@lru_cache(maxsize=2)
def index_of(family: Family) -> Index:
    """The family's index, kept for the next question about the same family."""
    return Index(family)
