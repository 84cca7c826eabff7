"""How a walk reads pages: as of when, beside which others, and how long it may wait.

Invariant: one value a walk, which the walk makes and whoever reads for it is handed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from app.pages.page import Page

MAX_WAIT_SECONDS: Final = 120.0
"""For the server, of one walk; no query is begun later."""


class Patience:
    """How long something may wait for a server in all, over any number of reads. In seconds."""

    def __init__(self, seconds: float = MAX_WAIT_SECONDS) -> None:
        self.left = seconds


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """`read_at_us`: when the walk's claim returned, on PostgreSQL's clock; pages loaded now carry it, or what is older.

    `at_hand`: pages that the walk has; what those tell of the pages that are loaded is not read again where they are
    as fresh as is asked for, and the new page carries the time of the oldest of them. `came_further` is called, by the
    thread that waits, for each part that arrives. `job_segments`: so many walks over the same texts are to come, that
    it pays to read as many pages before they ask; 0: none.
    """

    read_at_us: int
    at_hand: Collection[Page] = ()
    patience: Patience = field(default_factory=Patience)
    came_further: Callable[[], None] = _nothing
    job_segments: int = 0
