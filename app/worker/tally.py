"""What a worker has done lately, for the line that operators read once a minute.

Invariant: counting costs one lock a batch; nothing is said while nothing happens.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome

REPORT_SECONDS: Final = 60.0

_NAMES: Final[dict[type, str]] = {Done: "done", Hide: "to come back", Dead: "dead-lettered", Leave: "left to others"}


class Tally:
    """Counts outcomes; `report` tells what came since the last report."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[type] = Counter()
        self._since = clock()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count these."""
        kinds = [type(outcome) for outcome in outcomes]
        with self._lock:
            self._counts.update(kinds)

    def report(self) -> str | None:
        """A line such as ``1,200 messages in 60 s (20.0/s): 1,190 done, 10 to come back``, when one is due."""
        now = self._clock()
        seconds = now - self._since
        if seconds < REPORT_SECONDS:
            return None
        with self._lock:
            counts, self._counts = self._counts, Counter()
        self._since = now
        total = counts.total()
        if not total:
            return None
        parts = ", ".join(f"{counts[kind]:,} {name}" for kind, name in _NAMES.items() if counts[kind])
        return f"{total:,} messages in {seconds:.0f} s ({total / max(seconds, 0.001):.1f}/s): {parts}"
