"""The walk over pages that finds related segments (docs/formats.md, "The walk"). Pure: no I/O, no clock.

Invariant: the same pages give the same answer, always. The walk asks for pages a whole breadth-first level at
a time, so many walks driven together need one load a level; where pages come from is not known here.
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from app.core.segments import Start
from app.errors import PermanentError
from app.logs import info_each
from app.pages.page import Page
from app.pages.reading import Reading
from app.pages.spans import Pair

logger = logging.getLogger("app.neo4j_database")
"""The published name of the line that tells of a walk."""

FEW_SEGMENTS = 1_000
GUESSED_SEGMENT_BYTES = 200

type Walk = Generator[list[str], Mapping[str, Page], list[Visit]]


class PageSource(Protocol):
    """Where pages come from: the graph, or cache tiers before it."""

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """A page for every id in `needs`, none read before the time (microseconds) that stands there.

        Raises `OutageError` or `TransientError`.
        """
        ...


class Visit(NamedTuple):
    """A text that the walk reached, and the span of it that is related."""

    target: str
    low: int
    high: int


_visit = partial(tuple.__new__, Visit)
"""As `Visit` does it, without its constructor, which is Python and which each text of each walk would pass."""


class Step(NamedTuple):
    """One pair that the walk looked at from `here`; `carried`: the span that it goes on with, None: passed over."""

    level: int
    here: Visit
    pair: Pair
    was_visited: bool
    """Its target had been reached before, so that nothing was looked up."""
    carried: Visit | None


def walk(manifestation_id: str, start: int, end: int, steps: list[Step] | None = None) -> Walk:
    """Yield the ids of each level's pages, be sent a mapping that holds them, return the visits in order.

    What it does at each pair is added to `steps`. Raises PermanentError when the manifestation does not exist or a
    page's data cannot be used.
    """
    depth = 0
    visited = {manifestation_id}
    visits: list[Visit] = []
    level = [Visit(manifestation_id, start, end)]
    while level:
        pages = yield [visit.target for visit in level]
        if not visits and not pages[manifestation_id].exists:
            raise PermanentError(f"manifestation {manifestation_id!r} does not exist in the graph")
        reached: list[Visit] = []
        depth += 1
        for here in level:
            current, low, high = here
            page = pages[current]
            if page.problem:
                raise PermanentError(page.problem)
            for pair in page.near(low, high) if steps is None else page.pairs:
                target = pair.target
                if target in visited:
                    if steps is not None:
                        steps.append(Step(depth, here, pair, True, None))
                    continue
                hit = pair.reach(low, high)
                if hit is not None:
                    visited.add(target)
                    reached.append(_visit((target, *hit)))
                if steps is not None:
                    steps.append(Step(depth, here, pair, False, reached[-1] if hit else None))
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
        """The result JSON (docs/formats.md, "Results")."""
        return f"[{','.join([page.entry(ranks) for page, ranks in self._entries])}]"


def walk_together(
    starts: Sequence[Start], source: PageSource, came_further: Callable[[], None] = lambda: None
) -> list[RelatedTexts | PermanentError]:
    """Drive the walks in lock-step, one `source.get` a level for all of them; an answer a start, in their order.

    A start that cannot be answered gets its error as its answer; the others go on. What `source` raises passes.
    """
    begun = (((start.manifestation_id,), None) for start in starts)
    info_each(logger, "Starting BFS traversal from manifestation %s", begun)
    answers: dict[int, RelatedTexts | PermanentError] = {}
    pages: dict[str, Page] = {}
    # What is loaded now is read after the last of the claims returned, so it may carry the latest time.
    read_at_us = max((start.read_at_us for start in starts), default=0)
    # The pages at hand are of all jobs here, so it must pay for the smallest. A segment by itself may be one that is
    # suspected: nothing is begun beside it.
    job_segments = min(start.job_segments for start in starts) if len(starts) > 1 else 0
    reading = Reading(read_at_us, pages.values(), came_further=came_further, job_segments=job_segments)
    walks = [walk(start.manifestation_id, start.start, start.end) for start in starts]
    frontiers = {at: next(steps) for at, steps in enumerate(walks)}
    while frontiers:
        if needs := _needs(starts, frontiers, pages):
            pages.update(source.get(needs, reading))
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
    wanted: dict[int, dict[str, None]] = {}
    for at, frontier in frontiers.items():
        wanted.setdefault(starts[at].fresh_since_us, {}).update(dict.fromkeys(frontier))
    needs: dict[str, int] = {}
    for fresh_since_us, names in sorted(wanted.items()):
        for name in names:
            page = pages.get(name)
            if page is None or page.read_at_us < fresh_since_us:
                needs[name] = fresh_since_us
    return needs
