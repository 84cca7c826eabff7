"""Families as the graph adapter would see them: raw rows, pages, and a page source that needs no service.

Invariant: written from the definition of the graph and the shape of `READ_PAGES`' rows, whose order is not promised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from hypothesis import settings

from app.pages.build import Warn, WarnOnce, build_pages
from app.pages.mirrors import Mirrors, find_mirrors
from app.pages.page import Page, Segmentation
from app.pages.reading import Reading
from app.pages.spans import Pair
from bench.reference import index_of
from devstack.families import Family

unhurried = settings(deadline=None)
"""Decorates a property test: how long an example takes says more about the machine than about the code."""


def rows_of(family: Family, manifestation_id: str) -> list[list[Any]]:
    """What a graph that holds `family` answers to `READ_PAGES` about one manifestation."""
    graph = index_of(family)
    if manifestation_id not in graph.annotations_of:
        return [end_row(manifestation_id, exists=False)]
    types = {row.id: row.type for row in family.annotations} | dict(family.orphan_annotations)
    pairs = [
        pair_row(manifestation_id, a1.id, a2, graph.annotations[a2].manifestation if a2 in graph.annotations else None,
                 aligned_spans(family, a1.id, a2))
        for a1 in graph.annotations_of[manifestation_id]
        if a1.type == "alignment"
        for a2 in graph.aligned_annotations.get(a1.id, ())
        if types[a2] == "alignment"
    ]  # fmt: skip
    layers = [
        layer_row(manifestation_id, row.id, segments_of(family, row.id))
        for row in graph.annotations_of[manifestation_id]
        if row.type == "segmentation"
    ]
    return [*pairs, *layers, end_row(manifestation_id)]


def pair_row(name: str, a1: str, a2: str, target: str | None, spans: Sequence[Sequence[Any]]) -> list[Any]:
    """`spans`: [source start, source end, hit start, hit end] of every two aligned segments, None where absent."""
    return [name, True, "pair", a1, a2, target, _columns(spans, 4)]


def layer_row(name: str, annotation: str, segments: Sequence[Sequence[Any]]) -> list[Any]:
    """`segments`: [id, start, end], None where absent."""
    return [name, True, "layer", annotation, None, None, _columns(segments, 3)]


def end_row(name: str, *, exists: bool = True) -> list[Any]:
    """The last of a manifestation's rows."""
    return [name, exists, "end", None, None, None, None]


def build(rows: Sequence[list[Any]], read_at_us: int = 0, warn: Warn | None = None) -> Page:
    """The page of the one manifestation that all the rows are of; the end is added."""
    (page,) = build_pages([*rows, end_row(rows[0][0])], read_at_us, warn or WarnOnce()).values()
    return page


def pair_of(target: str, rows: Sequence[tuple[int, int, int, int]]) -> Pair:
    """From (source start, source end, hit start, hit end) for every hit."""
    return Pair.from_columns("a1", "a2", target, *_columns(rows, 4))


def segmentation_of(rows: Sequence[tuple[str, int, int]]) -> Segmentation:
    """From (id, start, end) for every segment."""
    return Segmentation.from_columns(*_columns(rows, 3))


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(width)]


def segments_of(family: Family, annotation: str) -> list[list[str | int | None]]:
    """[id, start, end] of an annotation's segments, those without a span too."""
    segments: list[list[str | int | None]] = [
        [row.id, row.start, row.end] for row in index_of(family).segments_of[annotation]
    ]
    return segments + [[name, None, None] for name, owner in family.spanless_segments if owner == annotation]


def aligned_spans(family: Family, a1: str, a2: str) -> list[list[int | None]]:
    """[source start, source end, hit start, hit end] of every two aligned segments of `a1` and `a2`."""
    graph = index_of(family)
    spans: dict[str, tuple[str, int | None, int | None]] = {
        row.id: (row.annotation, row.start, row.end) for row in family.segments
    } | {name: (annotation, None, None) for name, annotation in family.spanless_segments}
    return [
        [*spans[source][1:], *spans[hit][1:]]
        for source, (annotation, _, _) in spans.items()
        if annotation == a1
        for hit in graph.aligned_segments.get(source, ())
        if hit in spans and spans[hit][0] == a2
    ]


def page_of(family: Family, manifestation_id: str, read_at_us: int = 0, mirrors: Mirrors | None = None) -> Page:
    """The page of one manifestation of the family, or the page that says it does not exist."""
    known = [mirror.key for mirror in mirrors[manifestation_id]] if mirrors else []
    rows = [row for row in rows_of(family, manifestation_id) if row[3:6] not in known]
    return build_pages(rows, read_at_us, WarnOnce(), mirrors)[manifestation_id]


def pages_of(family: Family) -> dict[str, Page]:
    """The page of every manifestation of the family, from rows that come in turns."""
    queues = [rows_of(family, name) for name in family.manifestations]
    return build_pages([row for turn in zip_longest(*queues) for row in turn if row], 0, WarnOnce())


@dataclass
class MemoryGraph:
    """A graph without Neo4j: the loader and the page source that the tests' fakes stand on.

    `family` may be replaced to change the graph. `loads` records every call's ids, `spared` the pairs not read.
    """

    family: Family
    loads: list[tuple[str, ...]] = field(default_factory=list)
    spared: list[list[str]] = field(default_factory=list)
    graph_id: str = "memory"

    def load_pages(self, needs: Mapping[str, int], reading: Reading) -> dict[str, Page]:
        """The pages as the family has them now."""
        self.loads.append(tuple(needs))
        mirrors = find_mirrors(needs, reading.at_hand, reading.read_at_us)
        self.spared += [mirror.key for name in needs for mirror in mirrors[name]]
        return {name: page_of(self.family, name, reading.read_at_us, mirrors) for name in needs}

    def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
        """See `PageLoader`: in one part."""
        yield self.load_pages(needs, reading)

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """A page source without a cache."""
        return self.load_pages(needs, reading)
