"""Hypothesis strategies: small families with everything that the graph's owner may put into one.

Invariant: every family is one that docs/formats.md allows, and its shapes are those that walks get
wrong: cycles, gaps, nested, equal and zero-length spans, many-to-many links, links outside any pair, one
annotation in several pairs, texts aligned twice or with themselves, texts without a segmentation or with two.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from devstack.families import Annotation, Family, Segment

LONGEST_TEXT = 40
SPANS_PER_ANNOTATION = 6
# Quotes and escapes break hand-made Cypher, SQL and JSON; U+FF5E and U+10437 sort one way by code point and
# the other way by UTF-16 unit. No digits: a number is appended, and that is what makes an id unique.
ID_CHARACTERS = "ab'\"\\ {}$%:éཀ～𐐷"

id_prefixes = st.sampled_from(["～", "𐐷", "'\\"]) | st.text(alphabet=ID_CHARACTERS, max_size=3)
spans = st.tuples(st.integers(0, LONGEST_TEXT), st.integers(0, 12)).map(lambda drawn: (drawn[0], sum(drawn)))
span_lists = st.lists(spans, max_size=SPANS_PER_ANNOTATION)
some_spans = st.lists(spans, min_size=1, max_size=SPANS_PER_ANNOTATION)
places = st.tuples(st.integers(0, 99), st.integers(0, 99))
"""Two members of lists whose lengths are not known yet: each is taken modulo its list's length."""

link_lists = st.lists(places, min_size=1, max_size=SPANS_PER_ANNOTATION)


class Question(NamedTuple):
    """What a walk is asked: a half-open span of a manifestation that exists."""

    manifestation: str
    start: int
    end: int


class _Layer(NamedTuple):
    text: int
    type: str
    prefix: str
    spans: list[tuple[int, int]]


class _Alignment(NamedTuple):
    texts: tuple[int, int]
    prefixes: tuple[str, str]
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    links: list[tuple[int, int]]


layers = st.builds(
    _Layer,
    text=st.integers(0, 99),
    type=st.sampled_from(["segmentation", "pagination", "durchen"]),
    prefix=id_prefixes,
    spans=span_lists,
)
alignments = st.builds(
    _Alignment,
    texts=places,
    prefixes=st.tuples(id_prefixes, id_prefixes),
    spans=st.tuples(some_spans, some_spans),
    links=link_lists,
)


@st.composite
def families(draw: st.DrawFn, *, max_texts: int = 5, damaged: bool = False) -> Family:
    """A family of 1 to `max_texts` texts.

    With `damaged`, also annotations that belong to no manifestation and segments without a span, both of
    them aligned with others as if nothing were amiss.
    """
    texts = draw(st.lists(st.tuples(id_prefixes, some_spans | st.none()), min_size=1, max_size=max_texts))
    maker = _Maker([prefix for prefix, _ in texts])
    for number, (prefix, segmentation) in enumerate(texts):
        if segmentation is not None:
            maker.add_annotation(maker.text(number), "segmentation", prefix, segmentation)
    for layer in draw(st.lists(layers, max_size=max_texts)):
        maker.add_annotation(maker.text(layer.text), layer.type, layer.prefix, layer.spans)
    for alignment in draw(st.lists(alignments, min_size=len(maker.manifestations) - 1, max_size=2 * max_texts)):
        maker.add_alignment(alignment)
    if damaged:
        for prefix, drawn_spans in draw(st.lists(st.tuples(id_prefixes, span_lists), max_size=2)):
            maker.add_orphan(prefix, drawn_spans)
        for prefix, place in draw(st.lists(st.tuples(id_prefixes, st.integers(0, 99)), max_size=3)):
            maker.add_spanless(prefix, place)
    for annotation_places, links in draw(st.lists(st.tuples(places, link_lists), max_size=2)):
        maker.add_bridge(annotation_places, links)
    maker.add_loose_links(draw(st.lists(places, max_size=3)))
    return maker.family()


@st.composite
def questions(draw: st.DrawFn, family: Family) -> Question:
    """A question about `family`: about where one of its segments lies, or any span of any text.

    Often an empty span, or one past every segment.
    """
    segments = [segment for segment in family.segments if segment.annotation in _texts(family)]
    if segments and draw(st.integers(0, 3)) > 0:
        segment = draw(st.sampled_from(segments))
        start = max(0, segment.start + draw(st.integers(-2, 2)))
        end = max(start, segment.end + draw(st.integers(-2, 2)))
        return Question(_texts(family)[segment.annotation], start, end)
    start, length = draw(st.tuples(st.integers(0, LONGEST_TEXT + 10), st.integers(0, 30)))
    return Question(draw(st.sampled_from(family.manifestations)), start, start + length)


@st.composite
def asked_families(
    draw: st.DrawFn, *, max_texts: int = 5, damaged: bool = False, max_questions: int = 8
) -> tuple[Family, list[Question]]:
    """A family and one to `max_questions` questions about it."""
    family = draw(families(max_texts=max_texts, damaged=damaged))
    return family, draw(st.lists(questions(family), min_size=1, max_size=max_questions))


def _texts(family: Family) -> dict[str, str]:
    return {annotation.id: annotation.manifestation for annotation in family.annotations}


class _Maker:
    """Turns drawn numbers into a family: numbers are taken modulo, so that every draw is a valid one."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        self.manifestations = [f"{prefix}{number}" for number, prefix in enumerate(prefixes)]
        self.annotations: list[Annotation] = []
        self.orphans: list[tuple[str, str]] = []
        self.segments: list[Segment] = []
        self.spanless: list[tuple[str, str]] = []
        self.aligned_annotations: list[tuple[str, str]] = []
        self.aligned_segments: list[tuple[str, str]] = []

    def text(self, place: int) -> str:
        return self.manifestations[place % len(self.manifestations)]

    def add_annotation(self, text: str, type_: str, prefix: str, spans: list[tuple[int, int]]) -> str:
        id_ = f"{prefix}{len(self.annotations) + len(self.orphans)}"
        self.annotations.append(Annotation(id_, text, type_))
        self._add_segments(id_, prefix, spans)
        return id_

    def add_orphan(self, prefix: str, spans: list[tuple[int, int]]) -> None:
        id_ = f"{prefix}{len(self.annotations) + len(self.orphans)}"
        self.orphans.append((id_, "alignment"))
        self._add_segments(id_, prefix, spans)

    def add_spanless(self, prefix: str, place: int) -> None:
        id_ = f"{prefix}{len(self.segments) + len(self.spanless)}"
        annotations = self._annotation_ids()
        if annotations:
            self.spanless.append((id_, annotations[place % len(annotations)]))

    def add_alignment(self, alignment: _Alignment) -> None:
        left, right = (
            self.add_annotation(self.text(place), "alignment", prefix, side_spans)
            for place, prefix, side_spans in zip(*alignment[:3], strict=True)
        )
        self.aligned_annotations.append((left, right))
        self._link(self._segment_ids(left), self._segment_ids(right), alignment.links)

    def add_bridge(self, annotations: tuple[int, int], links: list[tuple[int, int]]) -> None:
        """ALIGNED_TO between any two annotations, whatever their types, and between their segments."""
        ids = self._annotation_ids()
        if ids:
            left, right = _pick(ids, ids, annotations)
            self.aligned_annotations.append((left, right))
            self._link(self._segment_ids(left), self._segment_ids(right), links)

    def add_loose_links(self, links: list[tuple[int, int]]) -> None:
        """ALIGNED_TO between any two segments of the family."""
        ids = self._segment_ids()
        self._link(ids, ids, links)

    def family(self) -> Family:
        return Family(
            manifestations=tuple(self.manifestations),
            annotations=tuple(self.annotations),
            segments=tuple(self.segments),
            aligned_annotations=tuple(self.aligned_annotations),
            aligned_segments=tuple(self.aligned_segments),
            orphan_annotations=tuple(self.orphans),
            spanless_segments=tuple(self.spanless),
        )

    def _annotation_ids(self) -> list[str]:
        return [annotation.id for annotation in self.annotations] + [id_ for id_, _ in self.orphans]

    def _segment_ids(self, annotation: str | None = None) -> list[str]:
        rows = [(row.id, row.annotation) for row in self.segments] + self.spanless
        return [id_ for id_, owner in rows if annotation in (None, owner)]

    def _link(self, left: list[str], right: list[str], links: list[tuple[int, int]]) -> None:
        if left and right:
            self.aligned_segments += [_pick(left, right, place) for place in links]

    def _add_segments(self, annotation: str, prefix: str, spans: list[tuple[int, int]]) -> None:
        first = len(self.segments) + len(self.spanless)
        self.segments += [
            Segment(f"{prefix}{first + number}", annotation, start, end) for number, (start, end) in enumerate(spans)
        ]


def _pick(left: list[str], right: list[str], place: tuple[int, int]) -> tuple[str, str]:
    return left[place[0] % len(left)], right[place[1] % len(right)]
