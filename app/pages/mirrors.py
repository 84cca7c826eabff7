"""Alignments that need not be read a second time, because a page of the text at their other end is at hand.

Invariant: what is taken over was read no earlier than the page that it becomes part of says it was, nor than was asked
for.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from app.pages.page import Page
from app.pages.spans import Pair


class Mirror(NamedTuple):
    """A pair of the text whose page is to be read, as the page of its target tells it, which was read at that time."""

    pair: Pair
    read_at_us: int

    @property
    def key(self) -> list[str]:
        """[a1, a2, target] of the pair."""
        return [self.pair.annotation, self.pair.other, self.pair.target]


type Mirrors = Mapping[str, Sequence[Mirror]]
"""By the id of the text that is to be read."""


def find_mirrors(needs: Mapping[str, int], at_hand: Collection[Page], read_at_us: int) -> Mirrors:
    """What the pages at hand tell of the pages of `needs`, which are read now as of `read_at_us`.

    `needs`: from when on a page may be, unless that is later than now, by its id.
    """
    mirrors: dict[str, list[Mirror]] = {name: [] for name in needs}
    for page in at_hand:
        for pair in page.pairs:
            if pair.target in mirrors and page.read_at_us >= min(needs[pair.target], read_at_us):
                mirrors[pair.target].append(Mirror(pair.mirrored(page.manifestation_id), page.read_at_us))
    return mirrors
