"""One walk, told step by step: which pair, which hits, which span is carried on, why a pair is passed over.

Invariant: it is the walk's own account of what it did, so that it can't differ from the answer.
"""

from dataclasses import dataclass

from app.pages.page import Page
from app.pages.reading import Reading
from app.pages.walk import PageSource, RelatedTexts, Step, Visit, walk


@dataclass(frozen=True, slots=True)
class Explanation:
    """A finished walk from `start`; `visits` in their order, `pages` those of all texts that it looked at."""

    start: Visit
    steps: tuple[Step, ...]
    visits: tuple[Visit, ...]
    pages: dict[str, Page]

    @property
    def related(self) -> RelatedTexts:
        """The answer."""
        return RelatedTexts(self.visits, self.pages)

    @property
    def touches_segment(self) -> bool:
        """Whether a segment of the text's own segmentation overlaps the span; true where it has none."""
        own = self.pages[self.start.target].segmentation
        return not len(own) or bool(own.overlapping(self.start.low, self.start.high))


def explain(manifestation_id: str, start: int, end: int, source: PageSource) -> Explanation:
    """Walk from [start, end) over the pages as they are now.

    Raises `PermanentError` as `walk` does, and what `source` raises.
    """
    pages: dict[str, Page] = {}
    steps: list[Step] = []
    reading = Reading(0, pages.values())
    walking = walk(manifestation_id, start, end, steps)
    wanted = next(walking)
    while True:
        if missing := {name: 0 for name in wanted if name not in pages}:
            pages.update(source.get(missing, reading))
        try:
            wanted = walking.send(pages)
        except StopIteration as finished:
            return Explanation(Visit(manifestation_id, start, end), tuple(steps), tuple(finished.value), pages)
