"""A page: all that the walk needs about one manifestation (shared/spec/cache.md).

Invariant: pages never change once made, and are shared between threads. What a result shows of a text is encoded as
JSON when its page is made, never again.
"""

import json
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import Any

from app.errors import ProcessorError
from app.spans import Numbers, Pair, compact, partition, pick

_ALLOCATOR_BYTES = 16  # CPython hands out memory in multiples of it

_quote = json.JSONEncoder().encode


class PageFormatError(ProcessorError):
    """These bytes are no page of this format: foreign, cut short, or damaged. A cache treats it as a miss."""


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

    The segment of rank r is `blob[offsets[r] : offsets[r + 1]]` with a comma at its end; there is one offset more.
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
        return ",".join(
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
        # JSON escapes line breaks, so that all ids can be quoted in one call and told apart again.
        quoted = json.dumps(ids, separators=("\n", ":"))[1:-1].split("\n")
        fragments = [
            f'{{"segment_id": {name}, "span": {{"start": {start}, "end": {end}}}}},'
            for name, start, end in zip(quoted, starts, ends, strict=True)
        ]
        chains = partition(ends)
        return cls(
            tuple(
                SegmentChain(pick(starts, chain), pick(ends, chain), compact(chain) if len(chains) > 1 else None)
                for chain in chains
            ),
            compact(list(accumulate(map(len, fragments), initial=0))),
            "".join(fragments),
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
