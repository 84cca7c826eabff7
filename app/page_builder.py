"""Builds a page from what the graph holds, and judges the data on the way.

Invariant: what is merely absent is skipped with a warning, once (a segment without a span, an annotation
without a manifestation); what is malformed makes the page unusable, in words that name it, and spoils no
other page.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import gt
from threading import Lock
from typing import Any

from app.errors import PermanentError
from app.pages import Page, Pair, Segmentation, SegmentRow, SpanRow

logger = logging.getLogger(__name__)

type Warn = Callable[[str], None]

MAX_REMEMBERED_WARNINGS = 10_000


@dataclass(frozen=True, slots=True)
class RawPair:
    """An alignment pair as the graph has it. `target` None: annotation `a2` belongs to no manifestation.

    `spans`: [source start, source end, hit start, hit end] for every two aligned segments, unchecked.
    """

    a1: str
    a2: str
    target: str | None
    spans: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class RawSegment:
    """A segment of a segmentation annotation as the graph has it, unchecked."""

    annotation: str
    id: str
    start: Any
    end: Any


@dataclass(frozen=True, slots=True)
class RawManifestation:
    """All that the graph has on one manifestation. A segment may come once for each of its annotations."""

    id: str
    exists: bool
    pairs: Sequence[RawPair] = ()
    segments: Sequence[RawSegment] = ()


@dataclass(slots=True)
class WarnOnce:
    """Logs a text about the graph's data the first time that it comes. Bounded: after many it may repeat."""

    _seen: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, text: str) -> None:
        """Log `text` as a warning unless it was logged before."""
        with self._lock:
            if text in self._seen:
                return
            if len(self._seen) >= MAX_REMEMBERED_WARNINGS:
                self._seen.clear()
            self._seen.add(text)
        logger.warning("%s", text)


def build_page(raw: RawManifestation, read_at_us: int, warn: Warn) -> Page:
    """The page of `raw`; with its `problem` set when its data is malformed."""
    try:
        return Page(
            raw.id, read_at_us, raw.exists, _pairs(raw, warn), Segmentation.from_rows(_segments(raw, warn))
        )
    except PermanentError as error:
        return Page(raw.id, read_at_us, raw.exists, problem=str(error))


def _pairs(raw: RawManifestation, warn: Warn) -> tuple[Pair, ...]:
    pairs: list[Pair] = []
    for pair in sorted(raw.pairs, key=lambda pair: (pair.a1, pair.a2, pair.target or "")):
        if pair.target is None:
            warn(f"annotation {pair.a2!r} belongs to no manifestation; its alignment is skipped")
        elif pair.target != raw.id:
            where = f"alignment {pair.a1!r} - {pair.a2!r} of manifestation {raw.id!r}"
            _check_text(pair.target, where)
            if rows := _span_rows(pair.spans, where, warn):
                pairs.append(Pair.from_rows(pair.target, rows))
    return tuple(pairs)


def _span_rows(spans: Sequence[Sequence[Any]], where: str, warn: Warn) -> Iterable[SpanRow]:
    """Checked by columns: this is where a load spends its time."""
    present = [row for row in spans if None not in row]
    if len(present) < len(spans):
        warn(f"{where} has segments without a span; they are skipped")
    if not present:
        return []
    columns = list(zip(*present, strict=True))
    sound = all(set(map(type, column)) == {int} for column in columns) and (
        min(columns[0]) >= 0 and min(columns[2]) >= 0
        and not any(map(gt, columns[0], columns[1])) and not any(map(gt, columns[2], columns[3]))
    )  # fmt: skip
    if not sound:
        for start, end, hit_start, hit_end in present:
            _check_span(start, end, f"a segment of {where}")
            _check_span(hit_start, hit_end, f"a segment of {where}")
    return present  # type: ignore[return-value]  # rows of four integers, as just checked


def _segments(raw: RawManifestation, warn: Warn) -> list[SegmentRow]:
    rows: list[SegmentRow] = []
    for segment in raw.segments:
        if segment.start is None or segment.end is None:
            warn(f"annotation {segment.annotation!r} has segments without a span; they are skipped")
            continue
        where = f"segment {segment.id!r} of manifestation {raw.id!r}"
        _check_text(segment.id, where)
        _check_span(segment.start, segment.end, where)
        rows.append((segment.id, segment.start, segment.end))
    return rows


def _check_span(start: object, end: object, where: str) -> None:
    if type(start) is not int or type(end) is not int:
        raise PermanentError(
            f"malformed graph data: {where} has the span [{start!r:.40}, {end!r:.40}), not integers"
        )
    if not 0 <= start <= end:
        raise PermanentError(f"malformed graph data: {where} has the span [{start}, {end})")


def _check_text(value: object, where: str) -> None:
    """An id that PostgreSQL's JSON can hold."""
    if not isinstance(value, str):
        raise PermanentError(f"malformed graph data: {where} has an id that is not text")
    if "\x00" in value:
        raise PermanentError(f"malformed graph data: {where} has a NUL character in its id")
