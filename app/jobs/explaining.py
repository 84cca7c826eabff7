"""An explained walk for a person, and for a program.

Invariant: a step says the text, both annotations and the span that it was looked up with, whatever became of it.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from app.jobs.tables import format_span
from app.logs import one_line
from app.pages.explain import Explanation
from app.pages.walk import Step, Visit

MOST_HITS: Final = 5
"""Shown to a person of one pair; a program gets them all."""


def describe_explanation(explained: Explanation) -> Iterator[str]:
    """A few lines a step, as they were taken."""
    yield f"start: {_visit(explained.start)}"
    level = 0
    for step in explained.steps:
        if step.level != level:
            level = step.level
            yield f"level {level}"
        yield f"  from {_visit(step.here)} by {one_line(step.pair.annotation)} -> {one_line(step.pair.other)}"
        yield from (f"    {line}" for line in _outcome(explained, step))
    reached = ", ".join(one_line(visit.target) for visit in explained.visits)
    yield f"related, in this order: {reached}" if reached else "related: nothing"


def _outcome(explained: Explanation, step: Step) -> Iterator[str]:
    target = one_line(step.pair.target)
    if step.was_visited:
        yield f"passed over: {target} was visited before"
        return
    if step.carried is None:
        yield f"passed over: no hit in {target}; it stays unvisited"
        return
    hits = step.pair.hits(step.here.low, step.here.high)
    for start, end, low, high in hits[:MOST_HITS]:
        yield f"hit: {_span(start, end)} is aligned with {_span(low, high)}"
    if len(hits) > MOST_HITS:
        yield f"and {len(hits) - MOST_HITS} hits more (--json lists all)"
    page = explained.pages[step.pair.target]
    count = len(page.segmentation.overlapping(step.carried.low, step.carried.high))
    has = f"{count} of its segments {'overlaps' if count == 1 else 'overlap'} it"
    yield f"carried on: {_visit(step.carried)}, {has if len(page.segmentation) else 'which has no segmentation'}"


def explanation_fields(explained: Explanation) -> dict[str, Any]:
    """All of it; `related` is the result as a job stores it."""
    start = explained.start
    return {
        "manifestation_id": start.target,
        "span": {"start": start.low, "end": start.high},
        "steps": [_step_fields(step) for step in explained.steps],
        "related": json.loads(explained.related.encode()),
    }


def _step_fields(step: Step) -> dict[str, Any]:
    carried = step.carried
    passed_over = "visited" if step.was_visited else "no hit"
    return {
        "level": step.level,
        "manifestation_id": step.here.target,
        "span": {"start": step.here.low, "end": step.here.high},
        "annotation": step.pair.annotation,
        "other_annotation": step.pair.other,
        "target": step.pair.target,
        "hits": [
            {"span": {"start": start, "end": end}, "aligned": {"start": low, "end": high}}
            for start, end, low, high in (step.pair.hits(step.here.low, step.here.high) if carried else ())
        ],
        "carried": carried and {"start": carried.low, "end": carried.high},
        "passed_over": None if carried else passed_over,
    }


def _visit(visit: Visit) -> str:
    return f"{one_line(visit.target)} {_span(visit.low, visit.high)}"


def _span(start: int, end: int) -> str:
    return format_span({"start": start, "end": end})
