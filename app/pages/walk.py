"""The walk over pages that finds related segments (shared/spec/traversal.md). Pure: no I/O, no clock.

Invariant: the same pages give the same answer, always. The walk asks for pages a whole breadth-first level at
a time, so many walks driven together need one load a level; where pages come from is not known here.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import NamedTuple, Protocol

from app.core.segments import Start
from app.errors import PermanentError
from app.pages.page import Page

FEW_SEGMENTS = 1_000
GUESSED_SEGMENT_BYTES = 200

type Walk = Generator[list[str], Mapping[str, Page], list[Visit]]
type Load = Callable[[Mapping[str, int], Collection[Page]], Mapping[str, Page]]
"""From what is needed, as for a `PageSource`, and the pages at hand."""


class PageSource(Protocol):
    """Where pages come from: the graph, or cache tiers before it."""

    def get(self, needs: Mapping[str, int], read_at_us: int, at_hand: Collection[Page] = ()) -> Mapping[str, Page]:
        """A page for every id in `needs`, none read before the time (microseconds) that stands there.

        `read_at_us`: the time that the caller's claim returned; pages loaded now carry it. `at_hand`: pages that the
        caller has; what those not read before `read_at_us` tell of the pages that are loaded is not read again.
        """
        ...


class Visit(NamedTuple):
    """A text that the walk reached, and the span of it that is related."""

    target: str
    low: int
    high: int


def walk(manifestation_id: str, start: int, end: int) -> Walk:
    """Yield the ids of each level's pages, be sent a mapping that holds them, return the visits in order.

    Raises PermanentError when the manifestation does not exist or a page's data cannot be used.
    """
    visited = {manifestation_id}
    visits: list[Visit] = []
    level = [Visit(manifestation_id, start, end)]
    while level:
        pages = yield [visit.target for visit in level]
        if not visits and not pages[manifestation_id].exists:
            raise PermanentError(f"manifestation {manifestation_id!r} does not exist in the graph")
        reached: list[Visit] = []
        for current, low, high in level:
            page = pages[current]
            if page.problem:
                raise PermanentError(page.problem)
            for pair in page.pairs:
                if pair.target in visited:
                    continue
                hit = pair.reach(low, high)
                if hit is not None:
                    visited.add(pair.target)
                    reached.append(Visit(pair.target, *hit))
        visits += reached
        level = reached
    return visits


class RelatedTexts:
    """What a finished walk found: of each text the page and the ranks of its segments, in the order of the visits.

    The JSON of a segment with many relations takes megabytes, so it is made when there is room for it.
    """

    __slots__ = ("_entries",)

    def __init__(self, visits: Sequence[Visit], pages: Mapping[str, Page]) -> None:
        self._entries = [
            (page := pages[target], page.segmentation.overlapping(low, high)) for target, low, high in visits
        ]

    @property
    def size_bytes(self) -> int:
        """About what `encode` gives: of few segments a guess, which costs nothing, of many an upper bound."""
        segments = sum([len(ranks) for _, ranks in self._entries])
        if segments <= FEW_SEGMENTS:
            return segments * GUESSED_SEGMENT_BYTES
        return sum([page.entry_bytes(ranks) for page, ranks in self._entries])

    def encode(self) -> str:
        """The result JSON (shared/spec/contract.md)."""
        return f"[{','.join([page.entry(ranks) for page, ranks in self._entries])}]"


def walk_together(starts: Sequence[Start], load: Load) -> list[RelatedTexts | PermanentError]:
    """Drive the walks in lock-step, one `load` a level for all of them; an answer a start, in their order.

    A start that cannot be answered gets its error as its answer; the others go on. What `load` raises passes.
    """
    answers: dict[int, RelatedTexts | PermanentError] = {}
    pages: dict[str, Page] = {}
    walks = [walk(start.manifestation_id, start.start, start.end) for start in starts]
    frontiers = {at: next(steps) for at, steps in enumerate(walks)}
    while frontiers:
        if needs := _needs(starts, frontiers, pages):
            pages.update(load(needs, pages.values()))
        for at in list(frontiers):
            try:
                frontiers[at] = walks[at].send(pages)
            except StopIteration as finished:
                del frontiers[at]
                answers[at] = RelatedTexts(finished.value, pages)
            except PermanentError as error:
                del frontiers[at]
                answers[at] = error
    return [answers[at] for at in range(len(starts))]


def _needs(starts: Sequence[Start], frontiers: Mapping[int, list[str]], pages: Mapping[str, Page]) -> dict[str, int]:
    """What the next level still lacks: id to the strictest freshness that any of the walks asks for."""
    needs: dict[str, int] = {}
    for at, frontier in frontiers.items():
        fresh_since_us = starts[at].fresh_since_us
        for wanted in frontier:
            page = pages.get(wanted)
            if page is None or page.read_at_us < fresh_since_us:
                needs[wanted] = max(fresh_since_us, needs.get(wanted, fresh_since_us))
    return needs
