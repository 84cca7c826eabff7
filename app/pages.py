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
from itertools import chain as chained

from app.errors import ProcessorError

BLOCK_SPANS = 64  # extremes are kept for each run of so many spans: a wide query looks at runs, not at spans
SEPARATOR = ","  # of one character, as the slices below know
_ALLOCATOR_BYTES = 16  # CPython hands out memory in multiples of it

type Numbers = array[int]
type SpanRow = tuple[int, int, int, int]  # source start, source end, least hit start, greatest hit end
type SegmentRow = tuple[str, int, int]  # id, start, end


class PageFormatError(ProcessorError):
    """These bytes are no page of this format: foreign, cut short, or damaged. A cache treats it as a miss."""


def compact(numbers: Iterable[int]) -> Numbers:
    """The numbers as 4-byte integers, or as 8-byte ones when they do not fit."""
    values = list(numbers)
    try:
        return array("i", values)
    except OverflowError:
        return array("q", values)


def is_ascending(numbers: Numbers) -> bool:
    """Whether they never decrease."""
    values = numbers.tolist()
    return values == sorted(values)


def partition(spans: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Split spans that come with nondecreasing starts into as few monotone chains as there can be.

    Returns the positions of each chain's spans, ascending. Every span goes to the chain whose last end is the
    greatest that does not exceed its own (patience sorting: the last ends stay in descending order).
    """
    chains: list[list[int]] = []
    descending_ends: list[int] = []  # negated, so that bisect can search it
    for position, (_, end) in enumerate(spans):
        place = bisect_left(descending_ends, -end)
        if place == len(chains):
            chains.append([position])
            descending_ends.append(-end)
        else:
            chains[place].append(position)
            descending_ends[place] = -end
    return chains


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
        lows = compact(min(self.lows[at : at + BLOCK_SPANS]) for at in blocks)
        highs = compact(max(self.highs[at : at + BLOCK_SPANS]) for at in blocks)
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
    def from_rows(cls, target: str, rows: Iterable[SpanRow]) -> "Pair":
        """Aggregate rows, in any order, to one entry for each distinct source span."""
        reach: dict[tuple[int, int], tuple[int, int]] = {}
        for start, end, low, high in rows:
            span = (start, end)
            known = reach.get(span)
            reach[span] = (low, high) if known is None else (min(known[0], low), max(known[1], high))
        spans = sorted(reach)
        return cls(target, tuple(_span_chain(spans, reach, chain) for chain in partition(spans)))


def _span_chain(
    spans: Sequence[tuple[int, int]], reach: dict[tuple[int, int], tuple[int, int]], chain: Iterable[int]
) -> SpanChain:
    members = [spans[position] for position in chain]
    starts, ends = zip(*members, strict=True)
    lows, highs = zip(*(reach[span] for span in members), strict=True)
    return SpanChain(compact(starts), compact(ends), compact(lows), compact(highs))


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
    def from_rows(cls, rows: Iterable[SegmentRow]) -> "Segmentation":
        """Segments in any order; one that comes twice (of two annotations) counts once."""
        segments = sorted({row[0]: row for row in rows}.values(), key=lambda row: (row[1], row[0]))
        fragments = [
            f'{{"segment_id": {json.dumps(name)}, "span": {{"start": {start}, "end": {end}}}}}'
            for name, start, end in segments
        ]
        offsets = [0]
        for fragment in fragments:
            offsets.append(offsets[-1] + len(fragment) + len(SEPARATOR))
        chains = partition((start, end) for _, start, end in segments)
        return cls(
            tuple(
                SegmentChain(
                    compact(segments[rank][1] for rank in chain),
                    compact(segments[rank][2] for rank in chain),
                    None if len(chains) == 1 else compact(chain),
                )
                for chain in chains
            ),
            compact(offsets),
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
        head = f'{{"manifestation_id": {json.dumps(self.manifestation_id)}, "segments": ['
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
