"""Spans in compact arrays, and the lookup of those that overlap another.

Invariant: a lookup costs a binary search a chain and a slice, also when spans overlap or nest; what it finds is
exactly `a.start < b.end and a.end > b.start`.

Spans that overlap or nest are kept as *monotone chains*: in a chain both starts and ends never decrease, so that the
overlaps of any query are one contiguous range. There are as many chains as spans nest in one another strictly: one,
mostly.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain as chained
from typing import Any

LOOK_AT_ONCE = 65_536  # numbers; as objects they take ten times the room that they have in an array
BLOCK_SPANS = 64  # extremes are kept for each run of so many spans: a wide query looks at runs, not at spans

type Numbers = array[int]


def compact(numbers: Sequence[int]) -> Numbers:
    """The numbers as 4-byte integers, or as 8-byte ones when they do not fit."""
    try:
        return array("i", numbers)
    except OverflowError:
        return array("q", numbers)


def is_ascending(numbers: Numbers) -> bool:
    """Whether they never decrease."""
    for at in range(0, len(numbers), LOOK_AT_ONCE):
        values = numbers[at : at + LOOK_AT_ONCE + 1].tolist()
        if values != sorted(values):
            return False
    return True


def sort_columns(*columns: Sequence[Any]) -> list[Sequence[Any]]:
    """The columns in the order of their rows, which need not be made into rows where the first column decides.

    Neo4j gives a text's segments last in, first out: mostly all that is needed is to turn the columns round.
    """
    first = columns[0]
    if len(set(first)) < len(first):
        return list(zip(*sorted(zip(*columns, strict=True)), strict=True))
    ascending = sorted(first)
    if first == ascending:
        return [*columns]
    if first[::-1] == ascending:
        return [column[::-1] for column in columns]
    order = sorted(range(len(first)), key=first.__getitem__)
    return [list(map(column.__getitem__, order)) for column in columns]


def partition(ends: Sequence[int]) -> list[Sequence[int]]:
    """Split spans that are sorted by their starts, given by their ends, into as few monotone chains as can be.

    Returns the positions of each chain's spans, ascending. Every span goes to the chain whose last end is the
    greatest that does not exceed its own (patience sorting: the last ends stay in descending order).
    """
    if list(ends) == sorted(ends):
        return [range(len(ends))] if ends else []
    chains: list[list[int]] = []
    descending_ends: list[int] = []  # negated, so that bisect can search it
    for position, end in enumerate(ends):
        place = bisect_left(descending_ends, -end)
        if place == len(chains):
            chains.append([position])
            descending_ends.append(-end)
        else:
            chains[place].append(position)
            descending_ends[place] = -end
    return [*chains]


def pick(numbers: Sequence[int], positions: Sequence[int]) -> Numbers:
    """Those of the numbers, compact; all of them without looking at each."""
    return compact(numbers if len(positions) == len(numbers) else [numbers[at] for at in positions])


@dataclass(frozen=True, slots=True)
class SpanChain:
    """Source spans of a pair and, for each, the least start and greatest end of what is aligned with it."""

    starts: Numbers
    ends: Numbers
    lows: Numbers
    highs: Numbers
    ordered: bool = field(init=False, repr=False, compare=False)  # lows and highs never decrease either
    low_blocks: Numbers = field(init=False, repr=False, compare=False)
    high_blocks: Numbers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive whether the alignment keeps its order, as most do, and if not the extremes of each block."""
        ordered = is_ascending(self.lows) and is_ascending(self.highs)
        blocks = range(0, 0 if ordered else len(self.starts), BLOCK_SPANS)
        lows = compact([min(self.lows[at : at + BLOCK_SPANS]) for at in blocks])
        highs = compact([max(self.highs[at : at + BLOCK_SPANS]) for at in blocks])
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "low_blocks", lows)
        object.__setattr__(self, "high_blocks", highs)

    @property
    def is_invertible(self) -> bool:
        """Whether the hits in this order are a chain, too, no two of them with the same start."""
        return self.ordered and len(set(self.lows)) == len(self.lows)

    def inverted(self) -> "SpanChain":
        """The chain of the hits. It must be invertible."""
        return SpanChain(self.lows, self.highs, self.starts, self.ends)

    def extremes(self, first: int, stop: int) -> tuple[int, int]:
        """(least low, greatest high) of the positions [first, stop), which are not none."""
        if self.ordered or stop - first == 1:
            return self.lows[first], self.highs[stop - 1]
        if stop - first <= 2 * BLOCK_SPANS:
            return min(self.lows[first:stop]), max(self.highs[first:stop])
        first_block, stop_block = -(-first // BLOCK_SPANS), stop // BLOCK_SPANS
        head, tail = slice(first, first_block * BLOCK_SPANS), slice(stop_block * BLOCK_SPANS, stop)
        whole = slice(first_block, stop_block)
        return (
            min(chained(self.low_blocks[whole], self.lows[head], self.lows[tail])),
            max(chained(self.high_blocks[whole], self.highs[head], self.highs[tail])),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """One alignment pair: `annotation` of this manifestation (a1), `other` of `target` (a2).

    `is_whole`: no hit was merged with another, so that the other end can be told from this one.
    """

    annotation: str
    other: str
    target: str
    chains: tuple[SpanChain, ...]
    is_whole: bool = True

    @property
    def extent(self) -> tuple[int, int]:
        """(start of the first source span, end of the last)."""
        starts = [chain.starts[0] for chain in self.chains]
        return min(starts, default=0), max([chain.ends[-1] for chain in self.chains], default=0)

    def reach(self, start: int, end: int) -> tuple[int, int] | None:
        """(least start, greatest end) of the hits of [start, end); None when nothing is hit."""
        found: tuple[int, int] | None = None
        for chain in self.chains:
            first = bisect_right(chain.ends, start)
            stop = bisect_left(chain.starts, end, first)
            if first < stop:
                low, high = chain.extremes(first, stop)
                found = (low, high) if found is None else (min(found[0], low), max(found[1], high))
        return found

    def hits(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """What `reach` is made of, in ascending order: (start, end, low, high) of each source span and its hits.

        Several hits of one source span are one row here: pages keep their least start and greatest end.
        """
        found: list[tuple[int, int, int, int]] = []
        for chain in self.chains:
            first = bisect_right(chain.ends, start)
            stop = bisect_left(chain.starts, end, first)
            columns = (chain.starts, chain.ends, chain.lows, chain.highs)
            found += zip(*(column[first:stop] for column in columns), strict=True)
        return sorted(found)

    @classmethod
    def from_columns(cls, annotation: str, other: str, target: str, *columns: Sequence[int]) -> "Pair":
        """From source starts, source ends, hit starts and hit ends, one of each for every hit, in any order."""
        is_whole = True
        if len(set(columns[0])) < len(columns[0]):
            columns, is_whole = _merged(*columns)
        starts, ends, lows, highs = sort_columns(*columns)
        chains = tuple(
            SpanChain(pick(starts, chain), pick(ends, chain), pick(lows, chain), pick(highs, chain))
            for chain in partition(ends)
        )
        return cls(annotation, other, target, chains, is_whole)

    def mirrored(self, target: str) -> "Pair":
        """The same alignment as the text at its other end has it; `target`: the text of this end. It must be whole."""
        if len(self.chains) == 1 and self.chains[0].is_invertible:
            return Pair(self.other, self.annotation, target, (self.chains[0].inverted(),))
        hits = (_joined(self.chains, name) for name in ("lows", "highs", "starts", "ends"))
        return Pair.from_columns(self.other, self.annotation, target, *hits)


def _joined(chains: Sequence[SpanChain], name: str) -> list[int]:
    """A column of all the chains."""
    return [number for chain in chains for number in getattr(chain, name)]


def _merged(*columns: Sequence[int]) -> tuple[tuple[list[int], ...], bool]:
    """One row for each distinct source span, ascending, with the extremes of its hits; whether none was merged.

    A plain loop over sorted rows: tables by span take four times as long, and this is most of what a page costs.
    """
    starts: list[int] = []
    ends: list[int] = []
    lows: list[int] = []
    highs: list[int] = []
    is_whole = True
    last_start = last_end = -1
    for start, end, low, high in sorted(zip(*columns, strict=True)):
        if start != last_start or end != last_end:
            last_start, last_end = start, end
            starts.append(start)
            ends.append(end)
            lows.append(low)
            highs.append(high)
        elif high > highs[-1]:
            highs[-1] = high
            is_whole = False
        elif high < highs[-1] or low > lows[-1]:
            is_whole = False
    return (starts, ends, lows, highs), is_whole
