"""Alignments that need not be read a second time, because a page of the text at their other end is at hand.

Invariant: what is taken over was read no earlier than the page that it becomes part of says it was.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from app.pages.page import Page
from app.pages.spans import Pair


class Mirror(NamedTuple):
    """A pair of the page of `source`, which leads to the text whose page is to be read."""

    source: str
    pair: Pair

    @property
    def key(self) -> list[str]:
        """[a1, a2, target] of the pair that it shows."""
        return [self.pair.other, self.pair.annotation, self.source]

    def shown(self) -> Pair:
        """The pair as the text that is to be read has it."""
        return self.pair.mirrored(self.source)


type Mirrors = Mapping[str, Sequence[Mirror]]
"""By the id of the text that is to be read."""


def find_mirrors(ids: Sequence[str], at_hand: Collection[Page], read_at_us: int) -> Mirrors:
    """What the pages at hand tell of the pages of `ids`, which are read now as of `read_at_us`."""
    mirrors: dict[str, list[Mirror]] = {name: [] for name in ids}
    for page in at_hand:
        if page.read_at_us >= read_at_us:
            for pair in page.pairs:
                if pair.is_whole and pair.target in mirrors:
                    mirrors[pair.target].append(Mirror(page.manifestation_id, pair))
    return mirrors
