"""The example files: their families, their questions, and their comparison.

Segments of a text that start at the same offset are compared as a set.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from app.pages.walk import RelatedTexts
from devstack.families import Family

EXAMPLES = Path(__file__).parent.parent / "examples"


class Question(NamedTuple):
    """One question about a family and, in the result JSON's shape, its right answer."""

    manifestation_id: str
    segment_id: str
    start: int
    end: int
    related: list[dict[str, Any]]


def example_files() -> list[Path]:
    """Every example file, in the order of their names."""
    return sorted(EXAMPLES.glob("*.json"))


def read_example(path: Path) -> tuple[Family, list[Question]]:
    """The family and all answered questions of an example file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Family.from_graph(document["graph"]), [Question(**row) for row in document["answers"]]


def canonical(related: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A result that equals another's exactly when both say the same: by start, ties in the order of ids.

    The manifestations keep their order, and a segment out of order by start stays out of order, unequal.
    """
    return [{**entry, "segments": _ties_sorted(entry["segments"])} for entry in related]


def decoded(answer: object) -> Any:
    """The result JSON of a walk's answer, read back; a start without an answer fails the test."""
    assert isinstance(answer, RelatedTexts), answer
    return json.loads(answer.encode())


def _ties_sorted(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    starts = [row["span"]["start"] for row in segments]
    if starts != sorted(starts):
        return segments
    return sorted(segments, key=lambda row: (row["span"]["start"], row["segment_id"]))
