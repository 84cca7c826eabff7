"""What became of the messages of this worker.

Invariant: counting costs one lock a batch, and what was counted is never counted back.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome

NAMES: Final[Mapping[type, str]] = {
    Done: "done",
    Hide: "to come back",
    Dead: "dead-lettered",
    Leave: "left to others",
}
"""Each outcome as a log line says it."""


class Tally:
    """Counts outcomes since the start. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[type] = Counter()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count these outcomes."""
        kinds = [type(outcome) for outcome in outcomes]
        with self._lock:
            self._counts.update(kinds)

    def counts(self) -> Counter[type]:
        """How many messages had each outcome so far."""
        with self._lock:
            return Counter(self._counts)
