"""The relation map: of a span of one text every related text, what of it is related, and how the walk came there.

Invariant: it shows the texts, spans and segments of the published walk over the graph as it was at most
`FRESH_SECONDS` ago; and what it holds of each is bounded, however much is related.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.core.jobs import NotFoundError
from app.errors import PermanentError
from app.neo4j_quries import LIST_TEXTS, READ_WORDS
from app.pages.page import Page, Segmentation
from app.pages.path import Hop, as_tree, path_to, read_pages, trace
from app.pages.reading import Reading
from app.pages.walk import PageSource, Visit

FRESH_SECONDS: Final = 30
"""An editor who changes an alignment sees it after this long; walking on by clicks reads nothing twice."""
TEXTS_A_PAGE: Final = 100
SEGMENTS_SHOWN: Final = 50
CONTENT_CHARACTERS: Final = 2_000
WORDS_SECONDS: Final = 10.0


type ReadRows = Callable[..., list[list[Any]]]
"""`Neo4JDatabase.read_rows`. Raises `OutageError` or `TransientError`."""


class SpanError(PermanentError):
    """There is such a text, but no such span of it."""


class ShownSegment(NamedTuple):
    """A segment of a text's segmentation; `content` as far as the graph holds the text."""

    segment_id: str
    start: int
    end: int
    content: str


@dataclass(frozen=True, slots=True)
class ShownText:
    """What is shown of one text: its span [low, high), and those of its segments that overlap it.

    `extent`: the greatest offset that the graph knows of it, in characters; a text may be longer. `title` and
    `content` (of the span, cut) are empty where the graph has none.
    """

    manifestation_id: str
    low: int
    high: int
    extent: int
    segments: int
    shown: tuple[ShownSegment, ...]
    title: str = ""
    content: str = ""

    @property
    def name(self) -> str:
        """The title, or the id for want of one."""
        return self.title or self.manifestation_id


@dataclass(frozen=True, slots=True)
class Related:
    """A related text, and the texts that led to it: the start first, without itself."""

    text: ShownText
    path: tuple[Visit, ...]
    annotation: str
    other: str


@dataclass(frozen=True, slots=True)
class RelationMap:
    """`related` holds at most `TEXTS_A_PAGE` of `total`, from the `first` on, each below what it was reached from."""

    start: ShownText
    related: tuple[Related, ...]
    titles: Mapping[str, str]
    total: int
    first: int
    longest: int
    """The greatest extent of what is shown: what one scale for all texts is made for."""


class MapReader:
    """Reads maps. Safe to use from several threads. Every method raises what reading the graph raises."""

    def __init__(self, pages: PageSource, read_rows: ReadRows) -> None:
        self._pages = pages
        self._read_rows = read_rows

    def list_texts(self, after: str, limit: int) -> list[tuple[str, str]]:
        """(id, title or id) of texts that have segments, by id, from the first id after `after` on."""
        found = [name for (name,) in self._read_rows(LIST_TEXTS, seconds=WORDS_SECONDS, after=after, limit=limit)]
        wanted = [{"id": name, "low": 0, "length": 0} for name in found]
        titles = {name: title for name, title, _ in self._read_rows(READ_WORDS, seconds=WORDS_SECONDS, wanted=wanted)}
        return [(name, titles.get(name) or name) for name in found]

    def find_segment(self, manifestation_id: str, segment_id: str) -> tuple[int, int]:
        """(start, end) of a segment of the text's segmentation. Raises `NotFoundError`."""
        segmentation = self._read(Visit(manifestation_id, 0, 0))[manifestation_id].segmentation
        wanted = json.dumps(segment_id)
        offsets = segmentation.offsets
        for rank in range(len(segmentation)):
            if segmentation.names[offsets[rank] : offsets[rank + 1]] == wanted:
                return segmentation.starts[rank], segmentation.ends[rank]
        raise NotFoundError(f"the segmentation of the text {manifestation_id!r} has no segment {segment_id!r}")

    def draw(self, manifestation_id: str, start: int | None, end: int | None, first: int = 0) -> RelationMap:
        """The map of [start, end); None: from the text's beginning, to its end as far as the graph knows it.

        Raises `NotFoundError`, `SpanError`, or `PermanentError` for data that cannot be used.
        """
        if end is None:
            extent = extent_of(self._read(Visit(manifestation_id, 0, 0))[manifestation_id])
            end = max(extent, start or 0)
        visit = Visit(manifestation_id, start or 0, end)
        _check_order(visit)
        pages = self._read(visit)
        _check_inside(visit, extent_of(pages[manifestation_id]))
        steps = as_tree(trace(visit, pages))
        chosen = steps[first : first + TEXTS_A_PAGE]
        by_target = {step.visit.target: step for step in steps}
        paths = [tuple(each.source for each in path_to(step, by_target)) for step in chosen]
        visits = [visit, *(step.visit for step in chosen)]
        words = self._read_words(visits, paths, pages)
        texts = [_shown(each, pages[each.target], words) for each in visits]
        return RelationMap(
            start=texts[0],
            related=tuple(map(_related, texts[1:], chosen, paths)),
            titles={name: title for name, (title, _) in words.items() if title},
            total=len(steps),
            first=first,
            longest=max(text.extent for text in texts),
        )

    def _read(self, start: Visit) -> Mapping[str, Page]:
        """What the walk needs. These pages stay in this process, so this machine's clock may date them."""
        now_us = time.time_ns() // 1_000
        pages = read_pages(start, self._pages, now_us - FRESH_SECONDS * 1_000_000, Reading(now_us))
        page = pages[start.target]
        if not page.exists:
            raise NotFoundError(f"the graph has no text {start.target!r}")
        if page.problem:
            raise PermanentError(page.problem)
        return pages

    def _read_words(
        self, visits: Sequence[Visit], paths: Sequence[tuple[Visit, ...]], pages: Mapping[str, Page]
    ) -> dict[str, tuple[str, str]]:
        """Title and content by text, each empty where there is none; the content from `_content_start` on."""
        wanted = {visit.target: {"id": visit.target, "low": 0, "length": 0} for path in paths for visit in path}
        for visit in visits:
            low = _content_start(visit, pages[visit.target].segmentation)
            wanted[visit.target] = {"id": visit.target, "low": low, "length": CONTENT_CHARACTERS}
        rows = self._read_rows(READ_WORDS, seconds=WORDS_SECONDS, wanted=list(wanted.values()))
        return {name: (title or "", content or "") for name, title, content in rows}


def extent_of(page: Page) -> int:
    """The greatest offset that the graph knows of a text: no segment of it, of whatever annotation, ends later."""
    chains = (chain for pair in page.pairs for chain in pair.chains)
    return max([0, *(max(ends) for ends in (page.segmentation.ends, *(chain.ends for chain in chains)) if ends)])


def _check_order(span: Visit) -> None:
    if span.low > span.high:
        raise SpanError(f"the span of the text {span.target!r} ends at {span.high}, before its start at {span.low}")


def _check_inside(span: Visit, extent: int) -> None:
    """A text of which the graph knows no segment may have any span."""
    if extent and span.high > extent:
        raise SpanError(
            f"the span [{span.low}, {span.high}) is not inside the text {span.target!r}, which the graph knows up to"
            f" {extent}"
        )


def _shown(visit: Visit, page: Page, words: Mapping[str, tuple[str, str]]) -> ShownText:
    segmentation = page.segmentation
    ranks = segmentation.overlapping(visit.low, visit.high)
    title, content = words.get(visit.target, ("", ""))
    begins = _content_start(visit, segmentation)

    def cut(start: int, end: int) -> str:
        return content[max(0, start - begins) : max(0, end - begins)]

    shown = []
    for rank in ranks[:SEGMENTS_SHOWN]:
        name = segmentation.names[segmentation.offsets[rank] : segmentation.offsets[rank + 1]]
        start, end = segmentation.starts[rank], segmentation.ends[rank]
        shown.append(ShownSegment(json.loads(name), start, end, cut(start, end)))
    extent = max(extent_of(page), visit.high)
    return ShownText(
        visit.target, visit.low, visit.high, extent, len(ranks), tuple(shown), title, cut(visit.low, visit.high)
    )


def _content_start(visit: Visit, segmentation: Segmentation) -> int:
    """Where the first of the shown segments begins, which may be before the span."""
    ranks = segmentation.overlapping(visit.low, visit.high)
    return min(visit.low, segmentation.starts[ranks[0]]) if ranks else visit.low


def _related(text: ShownText, step: Hop, path: tuple[Visit, ...]) -> Related:
    return Related(text, path, step.annotation, step.other)
