"""A page: all that the walk needs about one manifestation (docs/formats.md, "Pages and freshness").

Invariant: pages never change once made, and are shared between threads. Names are encoded as JSON when a page is made,
never again.
"""

import json
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from app.errors import ProcessorError
from app.pages.nearby import Nearby
from app.pages.spans import Numbers, Pair, compact, partition, sort_columns

_ALLOCATOR_BYTES = 16  # CPython hands out memory in multiples of it

_CHAIN_BYTES = 800  # of a chain, without its rows

_GUESSED_ROW_BYTES = 64  # its own end of the pair, another one, and the segments that they span

_FRAME_BYTES = len('{"segment_id": , "span": {"start": , "end": }},')

_quote = json.encoder.encode_basestring_ascii


class PageFormatError(ProcessorError):
    """These bytes are no page of this format: foreign, cut short, or damaged. A cache treats it as a miss."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A text's segments by (start, id): the rank of a segment is its place in this order.

    Its name, encoded as JSON, is `names[offsets[rank] : offsets[rank + 1]]`; there is one offset more than segments.
    `chains`: the ranks of each monotone chain (app/pages/spans.py), ascending; none when all segments are one chain.
    """

    starts: Numbers = field(default_factory=lambda: array("i"))
    ends: Numbers = field(default_factory=lambda: array("i"))
    offsets: Numbers = field(default_factory=lambda: array("i", [0]))
    names: str = ""
    chains: tuple[Numbers, ...] = ()

    def __len__(self) -> int:
        """The number of segments."""
        return len(self.starts)

    @property
    def columns(self) -> tuple[Sequence[str], Numbers, Numbers]:
        """Ids, starts and ends: what `from_columns` makes it of."""
        names = [json.loads(self.names[at:stop]) for at, stop in pairwise(self.offsets)]
        return names, self.starts, self.ends

    def encode(self, ranks: Sequence[int]) -> str:
        """The JSON of these segments, separated, without brackets."""
        starts, ends, offsets, names = self.starts, self.ends, self.offsets, self.names
        return ",".join(
            [
                f'{{"segment_id": {names[offsets[rank] : offsets[rank + 1]]},'
                f' "span": {{"start": {starts[rank]}, "end": {ends[rank]}}}}}'
                for rank in ranks
            ]
        )

    def encoded_bytes(self, ranks: Sequence[int]) -> int:
        """No less than the length of `encode(ranks)`, nor twice as much, without making it."""
        if not ranks:
            return 0
        offsets, ends = self.offsets, self.ends
        if isinstance(ranks, range):
            names_bytes = offsets[ranks.stop] - offsets[ranks.start]
            last_end = ends[ranks[-1]]
        else:
            names_bytes = sum([offsets[rank + 1] - offsets[rank] for rank in ranks])
            last_end = max([ends[rank] for rank in ranks])
        digits = len(str(self.starts[ranks[-1]])) + len(str(last_end))
        return names_bytes + len(ranks) * (_FRAME_BYTES + digits)

    def overlapping(self, start: int, end: int) -> Sequence[int]:
        """The ranks of the segments that overlap [start, end), ascending."""
        if not self.chains:
            first = bisect_right(self.ends, start)
            return range(first, bisect_left(self.starts, end, first))
        found: list[int] = []
        for ranks in self.chains:
            first = bisect_right(ranks, start, key=self.ends.__getitem__)
            found += ranks[first : bisect_left(ranks, end, first, key=self.starts.__getitem__)]
        return sorted(found)

    @classmethod
    def from_columns(cls, ids: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> "Segmentation":
        """From columns in any order; a segment that two annotations share counts once."""
        if len(set(ids)) < len(ids):
            unique = {row[0]: row for row in zip(ids, starts, ends, strict=True)}
            ids, starts, ends = zip(*unique.values(), strict=True)
        starts, ids, ends = sort_columns(starts, ids, ends)
        names = list(map(_quote, ids))
        chains = partition(ends)
        return cls(
            compact(starts),
            compact(ends),
            compact(list(accumulate(map(len, names), initial=0))),
            "".join(names),
            tuple(map(compact, chains)) if len(chains) > 1 else (),
        )


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
    nearby: Nearby | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Encode the head of this text's entry in a result once, and put the pairs in their places."""
        object.__setattr__(self, "nearby", Nearby.of(self.pairs))
        head = f'{{"manifestation_id": {_quote(self.manifestation_id)}, "segments": ['
        object.__setattr__(self, "json_head", head)

    def near(self, start: int, end: int) -> Sequence[Pair]:
        """The pairs that overlap [start, end), and maybe others, in their order."""
        return self.pairs if self.nearby is None else self.nearby.near(start, end)

    def entry(self, ranks: Sequence[int]) -> str:
        """This text's entry in a result, with the segments of these ranks."""
        return f"{self.json_head}{self.segmentation.encode(ranks)}]}}"

    def entry_bytes(self, ranks: Sequence[int]) -> int:
        """No less than the length of `entry(ranks)`, nor twice as much, without making it."""
        return len(self.json_head) + self.segmentation.encoded_bytes(ranks) + len("]}")


def guessed_bytes(pair: Pair) -> int:
    """What the page of the pair's target may hold, of which nothing but this pair is known."""
    return _GUESSED_ROW_BYTES * sum(len(chain.starts) for chain in pair.given.chains)


def size_bytes(page: Page) -> int:
    """The memory that a page holds, or will when it is asked for spans."""
    parts: list[object] = [
        page, page.manifestation_id, page.read_at_us, page.pairs, page.problem, page.json_head,
        page.segmentation, page.segmentation.starts, page.segmentation.ends, page.segmentation.offsets,
        page.segmentation.names, page.segmentation.chains, *page.segmentation.chains,
        *(page.nearby.parts if page.nearby else ()),
    ]  # fmt: skip
    spare_bytes = 0
    for pair in page.pairs:
        spare_bytes += pair.spare_chains * _CHAIN_BYTES
        chains, _ = pair.given
        parts += [pair, pair.annotation, pair.other, pair.target, pair.given, chains]
        for spans in chains:
            parts += [spans, spans.starts, spans.ends, spans.lows, spans.highs]
            parts += [spans.low_blocks, spans.high_blocks]
    return spare_bytes + sum(-(-sys.getsizeof(part) // _ALLOCATOR_BYTES) * _ALLOCATOR_BYTES for part in parts)
