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
from itertools import groupby
from operator import gt, itemgetter
from typing import Any, NamedTuple

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
        if any(map(gt, values, values[1:])):
            return False
    return True


def sort_columns(*columns: Sequence[Any]) -> list[Sequence[Any]]:
    """The columns in the order of their rows."""
    if len(set(columns[0])) < len(columns[0]):
        return list(zip(*sorted(zip(*columns, strict=True)), strict=True))
    return sort_by_first(*columns)


def sort_by_first(*columns: Sequence[Any]) -> list[Sequence[Any]]:
    """The columns in the order of the first one, rows of one value as they were; half the price of sorting rows."""
    first = columns[0]
    if len(first) < 2:
        return [*columns]
    arrange = itemgetter(*sorted(range(len(first)), key=first.__getitem__))
    return [arrange(column) for column in columns]


def partition(ends: Sequence[int]) -> list[Sequence[int]]:
    """Split spans that are sorted by their starts, given by their ends, into as few monotone chains as can be.

    Returns the positions of each chain's spans, ascending. Every span goes to the chain whose last end is the
    greatest that does not exceed its own (patience sorting: the last ends stay in descending order).
    """
    if not any(map(gt, ends, ends[1:])):
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
    """Source spans of a pair and, for each, what is aligned with it: a row each; `starts` and `ends` never decrease."""

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

    def rows(self, first: int = 0, stop: int | None = None) -> "zip[tuple[int, int, int, int]]":
        """(start, end, low, high) of the positions [first, stop)."""
        return zip(*(column[first:stop] for column in (self.starts, self.ends, self.lows, self.highs)), strict=True)

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


class Given(NamedTuple):
    """The chains of an alignment as they were read: from this end of it or, `from_other_end`, from the other."""

    chains: tuple[SpanChain, ...]
    from_other_end: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One alignment pair: `annotation` of this manifestation (a1), `other` of `target` (a2).

    Every hit is a row, so that either end can be told from the other. A pair that was read from its other end shares
    that one's arrays, and is sorted when it is first asked for a span, which most are not: walks lead away from a text.
    """

    annotation: str
    other: str
    target: str
    given: Given

    @classmethod
    def from_columns(cls, annotation: str, other: str, target: str, *columns: Sequence[int]) -> "Pair":
        """From source starts, source ends, hit starts and hit ends, one of each for every hit, in any order."""
        return cls(annotation, other, target, Given(_chains(*columns)))

    def mirrored(self, target: str) -> "Pair":
        """The same alignment as the text at its other end has it; `target`: the text of this end."""
        chains, from_other_end = self.given
        return Pair(self.other, self.annotation, target, Given(chains, not from_other_end))

    @property
    def chains(self) -> tuple[SpanChain, ...]:
        """As this end has them. They are kept unless they take more room than is counted."""
        given, from_other_end = self.given
        if not from_other_end:
            return given
        chains = _turned(given)
        if len(chains) <= len(given) + self.spare_chains:
            object.__setattr__(self, "given", Given(chains))
        return chains

    @property
    def spare_chains(self) -> int:
        """How many chains more than were given this end may keep, as spans may nest here that don't at the other end.

        To sort them takes as long as some hundred lookups in them; where so many nest a lookup takes long in any case.
        """
        chains, from_other_end = self.given
        if not from_other_end or (len(chains) == 1 and chains[0].ordered):
            return 0
        return 1 + sum([len(chain.starts) for chain in chains]) // BLOCK_SPANS

    def __eq__(self, other: object) -> bool:
        """Whether both have the same rows, whichever end they were read from and however often."""
        return isinstance(other, Pair) and self._names == other._names and self._rows == other._rows

    @property
    def _names(self) -> tuple[str, str, str]:
        """No two pairs of a page have the same; so pairs that differ are told apart without a look at their rows."""
        return self.annotation, self.other, self.target

    @property
    def _rows(self) -> set[tuple[int, int, int, int]]:
        return {row for chain in self.chains for row in chain.rows()}

    @property
    def extent(self) -> tuple[int, int]:
        """(start of the first source span, end of the last)."""
        chains, from_other_end = self.given
        extents = [
            chain.extremes(0, len(chain.starts)) if from_other_end else (chain.starts[0], chain.ends[-1])
            for chain in chains
        ]
        return min([start for start, _ in extents], default=0), max([end for _, end in extents], default=0)

    def reach(self, start: int, end: int) -> tuple[int, int] | None:
        """(least start, greatest end) of the hits of [start, end); None when nothing is hit."""
        found: tuple[int, int] | None = None
        chains, from_other_end = self.given
        for chain in self.chains if from_other_end else chains:
            first = bisect_right(chain.ends, start)
            stop = bisect_left(chain.starts, end, first)
            if first < stop:
                hit = (chain.lows[first], chain.highs[stop - 1]) if chain.ordered else chain.extremes(first, stop)
                found = hit if found is None else (min(found[0], hit[0]), max(found[1], hit[1]))
        return found

    def hits(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """What `reach` is made of, in ascending order: (start, end, low, high) of each source span and its hits.

        Several hits of one source span are one row here: their least start and greatest end.
        """
        found: list[tuple[int, int, int, int]] = []
        for chain in self.chains:
            first = bisect_right(chain.ends, start)
            found += chain.rows(first, bisect_left(chain.starts, end, first))
        return [
            (*span, min(low for _, _, low, _ in hits), max(high for _, _, _, high in hits))
            for span, hits in ((span, [*rows]) for span, rows in groupby(sorted(found), key=itemgetter(0, 1)))
        ]


def _chains(*columns: Sequence[int]) -> tuple[SpanChain, ...]:
    """As few as can be of rows in any order: source starts, source ends, hit starts, hit ends.

    Where everything is aligned in both directions each row is there twice, and is kept once.
    """
    if 0 < 2 * len(set(columns[0])) <= len(columns[0]):
        columns = tuple(zip(*set(zip(*columns, strict=True)), strict=True))
    ordered = sort_by_first(*columns)
    chains = partition(ordered[1])
    if len(chains) > 1:  # of spans that begin together the shortest is to be the first
        ordered = sort_columns(*ordered)
        chains = partition(ordered[1])
    return tuple(SpanChain(*(pick(column, chain) for column in ordered)) for chain in chains)


def _turned(chains: Sequence[SpanChain]) -> tuple[SpanChain, ...]:
    """The chains of the hits."""
    if len(chains) == 1 and chains[0].ordered:
        (chain,) = chains
        return (SpanChain(chain.lows, chain.highs, chain.starts, chain.ends),)
    rows = (row for chain in chains for row in chain.rows())
    starts, ends, lows, highs = zip(*rows, strict=True)
    return _chains(lows, highs, starts, ends)
