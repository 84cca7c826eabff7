"""Relations straight from the graph, for one who asks about a span now; no job, nothing stored.

Invariant: the answer is the one that a worker would store for the same span, from pages read less than `PAGE_SECONDS`
ago; the pages are this process's own, so that its clock decides nothing for workers.
"""

import time
from collections.abc import Callable
from typing import Final

from app.core.segments import Start
from app.errors import PermanentError
from app.pages.walk import PageSource, RelatedTexts, walk_together

PAGE_SECONDS: Final = 30.0
"""Whoever walks on from text to text finds most pages at hand."""
_US: Final = 1_000_000


class LiveRelations:
    """Walks over pages as they are now. Safe to share between threads."""

    def __init__(self, pages: PageSource, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch."""
        self._pages = pages
        self._clock = clock

    def relate(self, manifestation_id: str, start: int, end: int) -> RelatedTexts:
        """What is related to the half-open span [start, end) of the text.

        Raises `PermanentError` for an unknown text or data that cannot be used, `OutageError` or `TransientError`.
        """
        now_us = int(self._clock() * _US)
        begin = Start(manifestation_id, start, end, now_us - int(PAGE_SECONDS * _US), now_us)
        (answer,) = walk_together([begin], self._pages)
        if isinstance(answer, PermanentError):
            raise answer
        return answer
