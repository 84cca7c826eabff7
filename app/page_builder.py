"""Builds a page from what the graph holds, and judges the data on the way.

Invariant: what is merely absent is skipped with a warning, once (a segment without a span, an annotation
without a manifestation); what is malformed makes the page unusable, in words that name it, and spoils no
other page.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import gt
from threading import Lock
from typing import Any

from app.errors import PermanentError
from app.pages import Page, Segmentation
from app.spans import Pair

logger = logging.getLogger(__name__)

type Rows = Sequence[Sequence[Any]]
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
    spans: Rows


@dataclass(frozen=True, slots=True)
class RawLayer:
    """A segmentation annotation as the graph has it. `segments`: [id, start, end], unchecked, in any order."""

    annotation: str
    segments: Rows


@dataclass(frozen=True, slots=True)
class RawManifestation:
    """All that the graph has on one manifestation. A segment may come once in each of several layers."""

    id: str
    exists: bool
    pairs: Sequence[RawPair] = ()
    layers: Sequence[RawLayer] = ()


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
        segmentation = Segmentation.from_rows(check_layers(raw.layers, raw.id, warn))
        return Page(raw.id, read_at_us, raw.exists, _pairs(raw, warn), segmentation)
    except PermanentError as error:
        return Page(raw.id, read_at_us, raw.exists, problem=str(error))


def check_layers(layers: Sequence[RawLayer], manifestation_id: str, warn: Warn) -> list[Sequence[Any]]:
    """[id, start, end] of the segments that have a span; `PermanentError` when one is malformed."""
    return [row for layer in layers for row in _segment_rows(layer, manifestation_id, warn)]


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


def _span_rows(spans: Rows, where: str, warn: Warn) -> Rows:
    """The rows that have their spans, checked. By columns: loading spends its time here."""
    rows, columns = _present(spans)
    if len(rows) < len(spans):
        warn(f"{where} has segments without a span; they are skipped")
    if rows and not (_are_spans(columns[0], columns[1]) and _are_spans(columns[2], columns[3])):
        for start, end, hit_start, hit_end in rows:
            _check_span(start, end, f"a segment of {where}")
            _check_span(hit_start, hit_end, f"a segment of {where}")
    return rows


def _segment_rows(layer: RawLayer, manifestation_id: str, warn: Warn) -> Rows:
    rows, columns = _present(layer.segments)
    if len(rows) < len(layer.segments):
        warn(f"annotation {layer.annotation!r} has segments without a span; they are skipped")
    if rows and not (_are_texts(columns[0]) and _are_spans(columns[1], columns[2])):
        for name, start, end in rows:
            where = f"segment {name!r:.600} of manifestation {manifestation_id!r}"
            _check_text(name, where)
            _check_span(start, end, where)
    return rows


def _present(rows: Rows) -> tuple[Rows, list[tuple[Any, ...]]]:
    """The rows without a None in them, and their columns."""
    columns = list(zip(*rows, strict=True))
    if any(None in column for column in columns):
        rows = [row for row in rows if None not in row]
        columns = list(zip(*rows, strict=True))
    return rows, columns


def _are_spans(starts: Sequence[Any], ends: Sequence[Any]) -> bool:
    return set(map(type, starts)) | set(map(type, ends)) == {int} and (
        min(starts) >= 0 and not any(map(gt, starts, ends))
    )


def _are_texts(values: Sequence[Any]) -> bool:
    return set(map(type, values)) == {str} and "\x00" not in "".join(values)


def _check_span(start: object, end: object, where: str) -> None:
    if type(start) is not int or type(end) is not int:
        raise PermanentError(f"malformed graph data: {where} has the span [{start!r:.40}, {end!r:.40}), not integers")
    if not 0 <= start <= end:
        raise PermanentError(f"malformed graph data: {where} has the span [{start}, {end})")


def _check_text(value: object, where: str) -> None:
    """An id that PostgreSQL's JSON can hold."""
    if not isinstance(value, str):
        raise PermanentError(f"malformed graph data: {where} has an id that is not text")
    if "\x00" in value:
        raise PermanentError(f"malformed graph data: {where} has a NUL character in its id")
