"""Seeded text families of any size for the benchmark.

Invariant: a segment's result has the same size whatever `aligned_per_pair` is, and on average whatever
`texts` is, so that two profiles differ in the size of the graph alone. It holds by construction: every text is
cut into the same passages, a passage is one or a few whole segments, and however finely a passage is aligned,
any part of it in one text is linked with some part of each of its segments in the other.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Literal, NamedTuple

from devstack.families import Annotation, Family, Segment

type Shape = Literal["star", "chain", "random"]
type Span = tuple[int, int]

PASSAGES_PER_SEGMENT = 0.75
SEGMENT_CHARACTERS = (30, 150)
PIECES_PER_SEGMENT_CHARACTERS = 8
"""Segments are made longer than `SEGMENT_CHARACTERS` where more pieces than this share one."""
TRANSLATIONS_SHARE = 0.6


class Size(NamedTuple):
    """The counts of one profile; `reach` is the mean number of texts that a segment of the root is related to."""

    texts: int = 11
    segments_per_text: int = 2_000
    aligned_per_pair: int = 1_500
    reach: int = 10


STANDARD = Size()


def generate_family(
    texts: int = STANDARD.texts,
    segments_per_text: int = STANDARD.segments_per_text,
    aligned_per_pair: int = STANDARD.aligned_per_pair,
    shape: Shape = "star",
    seed: int = 0,
    *,
    reach: int = STANDARD.reach,
    name: str = "text",
) -> Family:
    """A connected family whose first manifestation is the root; the same arguments give the same family.

    Of more than `reach + 1` texts, each covers only some of the root's passages, so that a segment has about
    `reach` related texts in the largest family too. Shapes: "star" is a root with translations, and
    commentaries aligned with one of those; "chain" hangs chains of `reach` texts on the root; "random" is a
    random tree. Each has a few more pairs, which make cycles. `name` starts every id, so that families of
    different names can share a graph. Spans count characters.
    """
    with _no_garbage_collection():
        return _Generator(Size(texts, segments_per_text, aligned_per_pair, reach), seed, name).family(shape)


@dataclass(slots=True)
class _Text:
    """A text, its segments and, of each passage that it covers, the spans of the passage's segments."""

    id: str
    first_passage: int
    passages: dict[int, list[Span]] = field(default_factory=dict)


class _Generator:
    def __init__(self, size: Size, seed: int, name: str) -> None:
        self._size = size
        self._random = Random(seed)
        self._name = name
        self._annotations: list[Annotation] = []
        self._segments: list[Segment] = []
        self._aligned_annotations: list[tuple[str, str]] = []
        self._aligned_segments: list[tuple[str, str]] = []
        self._passages = max(1, min(int(size.segments_per_text * PASSAGES_PER_SEGMENT), size.aligned_per_pair))
        others = max(1, size.texts - 1)
        self._covered = min(self._passages, max(1, round(self._passages * size.reach / others)))

    def family(self, shape: Shape) -> Family:
        parents = _parents(shape, self._size, self._random)
        texts = self._make_texts(parents)
        for child, parent in enumerate(parents, start=1):
            self._align(texts[child], texts[parent])
        for child, grandparent in _extra_pairs(parents, self._random):
            self._align(texts[child], texts[grandparent])
        return Family(
            manifestations=tuple(text.id for text in texts),
            annotations=tuple(self._annotations),
            segments=tuple(self._segments),
            aligned_annotations=tuple(self._aligned_annotations),
            aligned_segments=tuple(self._aligned_segments),
        )

    def _make_texts(self, parents: list[int]) -> list[_Text]:
        """The root covers every passage; its children a window each, evenly spread; the rest their parent's."""
        texts = [self._make_text(0, 0, self._passages)]
        branches = parents.count(0)
        branch = 0
        for number, parent in enumerate(parents, start=1):
            first = texts[parent].first_passage
            if parent == 0:
                first = branch * self._passages // branches
                branch += 1
            texts.append(self._make_text(number, first, self._covered))
        return texts

    def _make_text(self, number: int, first_passage: int, covered: int) -> _Text:
        """Segments without a gap: those of the covered passages, then the rest of the text."""
        text = _Text(f"{self._name}-{number:03}", first_passage)
        layer = f"{text.id}.segmentation"
        self._annotations.append(Annotation(layer, text.id, "segmentation"))
        aligned = max(covered, self._size.segments_per_text * covered // self._passages)
        counts = [1] * covered
        for _ in range(aligned - covered):
            counts[self._random.randrange(covered)] += 1
        bounds = self._bounds(max(self._size.segments_per_text, aligned))
        self._segments += [
            Segment(f"{layer}.{place}", layer, start, end) for place, (start, end) in enumerate(pairwise(bounds))
        ]
        place = 0
        for passage, count in enumerate(counts, start=first_passage):
            own_bounds = bounds[place : place + count + 1]
            text.passages[passage % self._passages] = list(pairwise(own_bounds))
            place += count
        return text

    def _bounds(self, segments: int) -> list[int]:
        pieces_per_passage = -(-self._size.aligned_per_pair // self._covered)
        scale = -(-pieces_per_passage // PIECES_PER_SEGMENT_CHARACTERS)
        shortest, longest = SEGMENT_CHARACTERS
        bounds = [0]
        for _ in range(segments):
            bounds.append(bounds[-1] + scale * self._random.randint(shortest, longest))
        return bounds

    def _align(self, left: _Text, right: _Text) -> None:
        """Align every passage that both cover, `aligned_per_pair` pieces on each side."""
        sides = [f"{left.id}+{right.id}.{side}" for side in ("left", "right")]
        for id_, text in zip(sides, (left, right), strict=True):
            self._annotations.append(Annotation(id_, text.id, "alignment"))
        self._aligned_annotations.append((sides[0], sides[1]))
        common = [passage for passage in left.passages if passage in right.passages]
        for place, passage in enumerate(common):
            pieces = _share(self._size.aligned_per_pair, len(common), place)
            left_pieces = self._cut(sides[0], left.passages[passage], pieces)
            right_pieces = self._cut(sides[1], right.passages[passage], pieces)
            self._aligned_segments += _links(left_pieces, right_pieces)

    def _cut(self, annotation: str, passage: list[Span], pieces: int) -> list[list[str]]:
        """Cut a passage into aligned segments and return their ids, by segment or group of segments."""
        groups = _grouped(passage, min(pieces, len(passage)))
        ids: list[list[str]] = []
        for place, (start, end) in enumerate(groups):
            count = _share(pieces, len(groups), place)
            first = len(self._segments)
            cuts = [start + (end - start) * cut // count for cut in range(count + 1)]
            group = [
                Segment(f"{annotation}.{first + number}", annotation, *span)
                for number, span in enumerate(pairwise(cuts))
            ]
            self._segments += group
            ids.append([piece.id for piece in group])
        return ids


def _links(left: list[list[str]], right: list[list[str]]) -> Iterator[tuple[str, str]]:
    """Link every piece with at least one piece of each group on the other side."""
    for left_group in left:
        for right_group in right:
            for place in range(max(len(left_group), len(right_group))):
                yield left_group[place % len(left_group)], right_group[place % len(right_group)]


def _grouped(spans: list[Span], groups: int) -> list[Span]:
    """Adjoining spans joined until there are `groups` of them."""
    firsts = [len(spans) * group // groups for group in range(groups + 1)]
    return [(spans[first][0], spans[last - 1][1]) for first, last in pairwise(firsts)]


def _share(total: int, parts: int, part: int) -> int:
    """How much of `total` falls to one of `parts` parts that are as equal as can be."""
    return total * (part + 1) // parts - total * part // parts


def _parents(shape: Shape, size: Size, random: Random) -> list[int]:
    """For each text but the root, which is number 0, the number of the earlier text that it is aligned with."""
    others = range(1, size.texts)
    match shape:
        case "star":
            translations = max(1, round((size.texts - 1) * TRANSLATIONS_SHARE))
            return [0 if text <= translations else 1 + (text - 1) % translations for text in others]
        case "chain":
            return [0 if (text - 1) % size.reach == 0 else text - 1 for text in others]
        case "random":
            return [random.randrange(text) for text in others]


def _extra_pairs(parents: list[int], random: Random) -> list[tuple[int, int]]:
    """A few texts with their parent's parent, each of which closes a cycle of three."""
    deep = [text for text, parent in enumerate(parents, start=1) if parent != 0]
    chosen = random.sample(deep, min(len(deep), max(3, len(parents) // 5)))
    return [(text, parents[parents[text - 1] - 1]) for text in sorted(chosen)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of tuples and no cycle among them: collecting in between would double the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
