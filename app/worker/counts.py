"""What the work has told of itself since the start, kept in plain numbers until somebody asks.

Invariant: telling costs one lock and a few additions; no vendor is involved until the numbers are asked for.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter
from typing import Final, get_args

from app.core.endings import Completed, Ending, Failed, GivenBack, Postponed
from app.core.meter import Meter, Service, Step, Tier

BUCKETS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
STEPS: Final[tuple[Step, ...]] = get_args(Step.__value__)
TIERS: Final[tuple[Tier, ...]] = get_args(Tier.__value__)
ENDINGS: Final[Mapping[type, str]] = {
    Completed: "completed",
    Failed: "failed",
    Postponed: "postponed",
    GivenBack: "given_back",
}
LOST: Final = "lost"


@dataclass(slots=True)
class Histogram:
    """`counts`: one a bucket, and one for what took longer than the last; each by itself, not added up."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count it where it belongs: a bucket includes its upper bound."""
        self.counts[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def copy(self) -> "Histogram":
        """As it is now."""
        return Histogram(list(self.counts), self.total_seconds)


@dataclass(frozen=True, slots=True)
class Counted:
    """Numbers since the start. `calls`: by service and whether it worked."""

    segments: Mapping[str, int]
    pages: Mapping[Tier, int]
    calls: Mapping[tuple[str, bool], int]
    steps: Mapping[Step, Histogram]


class Counts(Meter):
    """Keeps what a `Meter` is told."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._segments: Counter[str] = Counter()
        self._pages: Counter[Tier] = Counter()
        self._calls: Counter[tuple[str, bool]] = Counter()
        self._steps = {step: Histogram() for step in STEPS}

    def step(self, step: Step) -> "_Step":
        """See `Meter`."""
        return _Step(self, step)

    def call(self, service: Service) -> "_Call":
        """See `Meter`."""
        return _Call(self, service)

    def pages(self, tier: Tier, number: int) -> None:
        """See `Meter`."""
        if number:
            with self._lock:
                self._pages[tier] += number

    def settled(self, endings: Sequence[Ending], task_ids: Collection[str]) -> None:
        """See `Meter`."""
        outcomes = [ENDINGS[type(ending)] for ending in endings if ending.claim.task_id in task_ids]
        with self._lock:
            self._segments.update(outcomes)

    def lost(self, number: int) -> None:
        """See `Meter`."""
        if number:
            with self._lock:
                self._segments[LOST] += number

    def took(self, step: Step, seconds: float) -> None:
        """A batch has taken so long for it."""
        with self._lock:
            self._steps[step].add(seconds)

    def called(self, service: Service, *, worked: bool) -> None:
        """One call has ended."""
        with self._lock:
            self._calls[service, worked] += 1

    def read(self) -> Counted:
        """The numbers as they are now, of one moment."""
        with self._lock:
            steps = {step: histogram.copy() for step, histogram in self._steps.items()}
            return Counted(dict(self._segments), dict(self._pages), dict(self._calls), steps)


class _Step:
    """Times what is done inside."""

    __slots__ = ("_began", "_counts", "_step")

    def __init__(self, counts: Counts, step: Step) -> None:
        self._counts = counts
        self._step: Step = step

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._counts.took(self._step, perf_counter() - self._began)


class _Call:
    """Sees whether what is done inside works."""

    __slots__ = ("_counts", "_service")

    def __init__(self, counts: Counts, service: Service) -> None:
        self._counts = counts
        self._service: Service = service

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        self._counts.called(self._service, worked=kind is None)
