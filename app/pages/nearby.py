"""Which pairs of a page may overlap a span, found without a look at each of them.

Invariant: no pair that overlaps the span is left out, and pairs come in the order that they have in the page.

A text that hundreds of others are aligned with, each with a part of it, has hundreds of pairs, of which a segment meets
ten. So the text is cut into equal cells, and each knows the pairs that begin before the end of the next and end after
its own start: a span that ends in the cell where it starts, or in the next, looks at those.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.pages.spans import Pair

FEW_PAIRS: Final = 16  # of so many each is looked at
MAX_CELLS: Final = 128  # a cell takes 8 bytes for each of its pairs


class Nearby(NamedTuple):
    """The pairs of a page and those of each of its cells. `width`: of a cell, in characters."""

    pairs: tuple[Pair, ...]
    width: int
    cells: tuple[tuple[Pair, ...], ...]

    @classmethod
    def of(cls, pairs: tuple[Pair, ...]) -> "Nearby | None":
        """None for few pairs."""
        if len(pairs) <= FEW_PAIRS:
            return None
        extents = [pair.extent for pair in pairs]
        width = max(end for _, end in extents) // MAX_CELLS + 1
        cells: list[list[Pair]] = [[] for _ in range(MAX_CELLS)]
        for pair, (start, end) in zip(pairs, extents, strict=True):
            for cell in range(max(0, start // width - 1), end // width + 1):
                cells[cell].append(pair)
        return cls(pairs, width, _shared(cells))

    def near(self, start: int, end: int) -> Sequence[Pair]:
        """The pairs that overlap [start, end), and others; all of them for a span of many cells."""
        cell = start // self.width
        return self.cells[cell] if 0 <= cell < len(self.cells) and end // self.width <= cell + 1 else self.pairs

    @property
    def parts(self) -> list[object]:
        """What it holds beside the pairs, each once."""
        return [self, self.width, self.cells, *{id(cell): cell for cell in self.cells}.values()]


def _shared(cells: Sequence[Sequence[Pair]]) -> tuple[tuple[Pair, ...], ...]:
    """Neighbours with the same pairs are one tuple: of texts that are aligned from end to end all of them are."""
    shared: list[tuple[Pair, ...]] = []
    for cell in map(tuple, cells):
        shared.append(shared[-1] if shared and shared[-1] == cell else cell)
    return tuple(shared)
