"""How a walk came to the texts that it visited: from which text, by which alignment, over which span.

Invariant: it is the walk's own account of what it did, so that it can't differ from the answer.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from app.pages.page import Page
from app.pages.reading import Reading
from app.pages.walk import PageSource, Step, Visit, walk


class Hop(NamedTuple):
    """One text that was reached: `visit` says what of it, `source` from where, by the pair (annotation, other)."""

    visit: Visit
    source: Visit
    annotation: str
    other: str


def read_pages(start: Visit, source: PageSource, fresh_since_us: int, reading: Reading) -> dict[str, Page]:
    """Every page that the walk from `start` needs, one `source.get` a level, none read before `fresh_since_us`.

    Of a text that does not exist its page alone. Raises `PermanentError` for data that cannot be used,
    and what `source` raises.
    """
    pages = dict(source.get({start.target: fresh_since_us}, reading))
    if not pages[start.target].exists:
        return pages
    steps = walk(*start)
    frontier = next(steps)
    while True:
        missing = {name: fresh_since_us for name in frontier if name not in pages}
        if missing:
            pages.update(source.get(missing, reading))
        try:
            frontier = steps.send(pages)
        except StopIteration:
            return pages


def trace(start: Visit, pages: Mapping[str, Page]) -> list[Hop]:
    """The hops of the walk from `start`, in the order of its visits; `pages` holds all that it needs.

    Raises `PermanentError` as the walk does.
    """
    steps: list[Step] = []
    walking = walk(*start, steps)
    next(walking)
    with suppress(StopIteration):
        while True:
            walking.send(pages)
    return [Hop(step.carried, step.here, step.pair.annotation, step.pair.other) for step in steps if step.carried]


def as_tree(steps: Sequence[Hop]) -> list[Hop]:
    """The same steps, each right behind the text that it was reached from and what else that led to before it."""
    onward: dict[str, list[Hop]] = {}
    for step in steps:
        onward.setdefault(step.source.target, []).append(step)
    ordered: list[Hop] = []
    waiting = onward.get(steps[0].source.target, [])[::-1] if steps else []
    while waiting:
        ordered.append(waiting.pop())
        waiting += onward.get(ordered[-1].visit.target, [])[::-1]
    return ordered


def path_to(step: Hop, by_target: Mapping[str, Hop]) -> list[Hop]:
    """The steps that lead from the start to this one, this one last. `by_target`: every step by the text it reached."""
    path = [step]
    while (before := by_target.get(path[-1].source.target)) is not None:
        path.append(before)
    return path[::-1]
