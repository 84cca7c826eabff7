"""A page: all that the walk needs about one manifestation, as compact arrays (shared/spec/cache.md).

Invariant: looking up a span costs a binary search a chain and a slice, also when spans overlap or nest; what
it finds is exactly `a.start < b.end and a.end > b.start`. Pages never change and are shared between threads.

Spans that overlap or nest are kept as *monotone chains*: in a chain both starts and ends never decrease, so
that the overlaps of any query are one contiguous range. There are as many chains as spans nest in one another
strictly: one, mostly.
"""

import json
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from itertools import chain as chained
from operator import itemgetter
from typing import Any

from app.errors import ProcessorError

BLOCK_SPANS = 64  # extremes are kept for each run of so many spans: a wide query looks at runs, not at spans
SEPARATOR = ","  # of one character, as the slices below know
_ALLOCATOR_BYTES = 16  # CPython hands out memory in multiples of it

_quote = json.JSONEncoder().encode

type Numbers = array[int]


class PageFormatError(ProcessorError):
    """These bytes are no page of this format: foreign, cut short, or damaged. A cache treats it as a miss."""


def compact(numbers: Sequence[int]) -> Numbers:
    """The numbers as 4-byte integers, or as 8-byte ones when they do not fit."""
    try:
        return array("i", numbers)
    except OverflowError:
        return array("q", numbers)


def is_ascending(numbers: Numbers) -> bool:
    """Whether they never decrease."""
    values = numbers.tolist()
    return values == sorted(values)


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


def _pick(numbers: Sequence[int], positions: Sequence[int]) -> Numbers:
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
    """One alignment pair (a1 of this manifestation, a2 of `target`)."""

    target: str
    chains: tuple[SpanChain, ...]

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

    @classmethod
    def from_rows(cls, target: str, rows: Iterable[Any]) -> "Pair":
        """From [source start, source end, hit start, hit end] for every hit, in any order."""
        ordered = sorted(rows)
        if not ordered:
            return cls(target, ())
        starts, ends, lows, highs = zip(*ordered, strict=True)
        if len(set(zip(starts, ends, strict=True))) < len(starts):
            starts, ends, lows, highs = zip(*_merged(ordered), strict=True)
        return cls(
            target,
            tuple(
                SpanChain(_pick(starts, chain), _pick(ends, chain), _pick(lows, chain), _pick(highs, chain))
                for chain in partition(ends)
            ),
        )


def _merged(ordered: Iterable[Sequence[int]]) -> list[tuple[int, int, int, int]]:
    """One row for each distinct source span, with the extremes of its hits."""
    hits: dict[tuple[int, int], tuple[int, int]] = {}
    for start, end, low, high in ordered:
        known = hits.get((start, end), (low, high))
        hits[start, end] = (min(known[0], low), max(known[1], high))
    return [(*span, *extremes) for span, extremes in hits.items()]


@dataclass(frozen=True, slots=True)
class SegmentChain:
    """Segments whose starts and ends both never decrease.

    `ranks`: their places in the order by (start, id), ascending; None when this is the only chain.
    """

    starts: Numbers
    ends: Numbers
    ranks: Numbers | None = None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A text's segments by (start, id), encoded as JSON once; a run of them is a slice of `blob`.

    The segment of rank r is `blob[offsets[r] : offsets[r + 1] - 1]`; there is one offset more than segments.
    """

    chains: tuple[SegmentChain, ...] = ()
    offsets: Numbers = field(default_factory=lambda: array("i", [0]))
    blob: str = ""

    def __len__(self) -> int:
        """The number of segments."""
        return len(self.offsets) - 1

    def overlapping(self, start: int, end: int) -> str:
        """The JSON of the segments that overlap [start, end), by (start, id), separated, without brackets."""
        runs: list[range] = []
        for chain in self.chains:
            first = bisect_right(chain.ends, start)
            stop = bisect_left(chain.starts, end, first)
            if first < stop:
                if chain.ranks is None:
                    return self.blob[self.offsets[first] : self.offsets[stop] - 1]
                runs += _runs(chain.ranks[first:stop])
        return SEPARATOR.join(
            self.blob[self.offsets[run.start] : self.offsets[run.stop] - 1]
            for run in sorted(runs, key=lambda run: run.start)
        )

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> "Segmentation":
        """From [id, start, end] in any order; a segment that comes twice (of two annotations) counts once."""
        unique = {row[0]: row for row in rows}
        if not unique:
            return cls()
        ids, starts, ends = zip(*sorted(unique.values(), key=itemgetter(1, 0)), strict=True)
        fragments = [
            f'{{"segment_id": {name}, "span": {{"start": {start}, "end": {end}}}}}'
            for name, start, end in zip(map(_quote, ids), starts, ends, strict=True)
        ]
        lengths = (len(fragment) + len(SEPARATOR) for fragment in fragments)
        chains = partition(ends)
        return cls(
            tuple(
                SegmentChain(_pick(starts, chain), _pick(ends, chain), compact(chain) if len(chains) > 1 else None)
                for chain in chains
            ),
            compact(list(accumulate(lengths, initial=0))),
            SEPARATOR.join(fragments),
        )


def _runs(ranks: Sequence[int]) -> list[range]:
    """Ascending ranks as maximal runs of consecutive ones."""
    runs: list[range] = []
    first = previous = ranks[0]
    for rank in ranks[1:]:
        if rank != previous + 1:
            runs.append(range(first, previous + 1))
            first = rank
        previous = rank
    runs.append(range(first, previous + 1))
    return runs


@dataclass(frozen=True, slots=True)
class Page:
    """One manifestation as it was read at `read_at_us`.

    `read_at_us`: microseconds since the epoch on PostgreSQL's clock at which the reading began, or earlier.
    `pairs`: in code-point order of (a1.id, a2.id), without pairs of the text with itself (its own walk never
    returns to it). `problem`: why the graph's data cannot be used; a walk that meets it fails permanently.
    """

    manifestation_id: str
    read_at_us: int
    exists: bool
    pairs: tuple[Pair, ...] = ()
    segmentation: Segmentation = field(default_factory=Segmentation)
    problem: str = ""
    json_head: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Encode the head of this text's entry in a result once."""
        head = f'{{"manifestation_id": {_quote(self.manifestation_id)}, "segments": ['
        object.__setattr__(self, "json_head", head)

    def entry(self, start: int, end: int) -> str:
        """This text's entry in a result: the segments that overlap [start, end)."""
        return f"{self.json_head}{self.segmentation.overlapping(start, end)}]}}"


def size_bytes(page: Page) -> int:
    """The memory that a page holds."""
    parts: list[object] = [
        page, page.manifestation_id, page.read_at_us, page.pairs, page.problem, page.json_head,
        page.segmentation, page.segmentation.chains, page.segmentation.offsets, page.segmentation.blob,
    ]  # fmt: skip
    for segments in page.segmentation.chains:
        parts += [segments, segments.starts, segments.ends, segments.ranks]
    for pair in page.pairs:
        parts += [pair, pair.target, pair.chains]
        for spans in pair.chains:
            parts += [spans, spans.starts, spans.ends, spans.lows, spans.highs]
            parts += [spans.low_blocks, spans.high_blocks]
    return sum(-(-sys.getsizeof(part) // _ALLOCATOR_BYTES) * _ALLOCATOR_BYTES for part in parts)
