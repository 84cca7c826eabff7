"""The arithmetic of the benchmark: rates, quantiles, medians with their spread. Pure.

Invariant: a ratio is taken within a repeat, between neighbours in time, and only then is a median made of it; so
what slows the machine for a minute slows both sides.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of some repeats, the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """ValueError for no values."""
        kept = sorted(values)
        if not kept:
            raise ValueError("no values, no median")
        return cls(median(kept), kept[0], kept[-1])


def steady_rate(times: Sequence[float], skipped: int) -> float:
    """Completions a second after the first `skipped`, from the ascending times of all of them."""
    if not 0 < skipped < len(times):
        raise ValueError(f"{skipped} of {len(times)} completions cannot be skipped")
    return (len(times) - skipped) / (times[-1] - times[skipped - 1])


def skipped_at_start(segments: int, warmed_up: int = 0) -> int:
    """How many completions are not counted: the warm-up, if there is one, and a tenth of what follows."""
    return max(1, warmed_up + ceil((segments - warmed_up) / 10))


def quantile(values: Iterable[float], share: float) -> float:
    """The value that at least `share` (0 to 1) of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, no quantile")
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def without_start(values: Sequence[float]) -> Sequence[float]:
    """Nine tenths: the first one is left out."""
    return values[len(values) // 10 :]


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]
