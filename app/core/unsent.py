"""Segments that want a message, and where their spans come from when their producer gave none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

RESEND_AFTER_SECONDS: Final = 900.0
"""An unfinished segment's message is sent again when it is untouched for so long; doubled with each repeat."""


@dataclass(frozen=True, slots=True)
class UnsentSegment:
    """A segment that wants a message; its span is None when no producer or claim has stored it."""

    task_id: str
    job_id: str
    manifestation_id: str
    segment_id: str
    start: int | None
    end: int | None


class SpanFinder(Protocol):
    """The graph, asked for the spans of segments whose producer gave none."""

    def find_spans(self, segment_ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """Half-open spans of those segments that have one. Raises `ProcessorError`."""
        ...


def with_spans(
    segments: Sequence[UnsentSegment], graph: SpanFinder, store: Callable[[Sequence[tuple[str, int, int]]], None]
) -> tuple[list[UnsentSegment], list[UnsentSegment]]:
    """Those that a message can be sent for, and those whose span neither their row nor the graph knows.

    Spans that their producer did not give are read from the graph and kept. Raises `ProcessorError`.
    """
    bare = [segment for segment in segments if segment.start is None]
    if not bare:
        return list(segments), []
    spans = graph.find_spans([segment.segment_id for segment in bare])
    found = [
        replace(segment, start=spans[segment.segment_id][0], end=spans[segment.segment_id][1])
        for segment in bare
        if segment.segment_id in spans
    ]
    if found:
        store([(segment.task_id, *spans[segment.segment_id]) for segment in found])
    unknown = [segment for segment in bare if segment.segment_id not in spans]
    return [segment for segment in segments if segment.start is not None] + found, unknown
