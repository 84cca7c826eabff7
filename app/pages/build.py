"""Builds pages from what the graph holds, and judges the data on the way.

Invariant: what is merely absent is skipped with a warning, once (a segment without a span, an annotation
without a manifestation); what is malformed makes the page unusable, in words that name it, and spoils no
other page. Each part is built while the next is still on its way.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, gt
from threading import Lock
from typing import Any

from app.errors import PermanentError
from app.pages.mirrors import Mirrors
from app.pages.page import Page, Segmentation
from app.pages.spans import Pair

logger = logging.getLogger(__name__)

type Columns = Sequence[Sequence[Any]]
"""Equally long; None for a value that a segment lacks."""
type Warn = Callable[[str], None]

MAX_REMEMBERED_WARNINGS = 10_000


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


def build_pages(
    rows: Iterable[Sequence[Any]], read_at_us: int, warn: Warn, mirrors: Mirrors | None = None
) -> dict[str, Page]:
    """The page of each manifestation, by its id, from the rows of `READ_PAGES` (app/neo4j_quries.py) in any order.

    `mirrors`: the pairs that were not asked for; a page is as old as the oldest of its own. A page whose data is
    malformed has its `problem` set.
    """
    drafts: dict[str, _Draft] = {}
    for manifestation_id, exists, *part in rows:
        draft = drafts.get(manifestation_id)
        if draft is None:
            known = mirrors.get(manifestation_id, ()) if mirrors and exists else ()
            oldest_us = min([mirror.read_at_us for mirror in known], default=read_at_us)
            pairs = [mirror.pair for mirror in known]
            draft = _Draft(manifestation_id, min(oldest_us, read_at_us), exists, warn, pairs)
            drafts[manifestation_id] = draft
        draft.add(*part)
    return {manifestation_id: draft.page() for manifestation_id, draft in drafts.items()}


def check_layer(annotation: str, columns: Columns, manifestation_id: str, warn: Warn) -> Columns:
    """An annotation's segments without those that lack an id or a span; `PermanentError` when one is malformed.

    `columns`: ids, starts, ends, in any order.
    """
    names, starts, ends = columns
    if _are_texts(names) and _are_spans(starts, ends):
        return columns
    columns = _present(columns, f"annotation {annotation!r} has segments without an id or a span", warn)
    for name, start, end in zip(*columns, strict=True):
        where = f"segment {name!r:.600} of manifestation {manifestation_id!r}"
        _check_text(name, where)
        _check_span(start, end, where)
    return columns


def join_layers(layers: Sequence[Columns]) -> Columns:
    """The columns of several annotations as one: ids, starts, ends."""
    if len(layers) == 1:
        return layers[0]
    return [[value for layer in layers for value in layer[at]] for at in range(3)]


@dataclass(slots=True)
class _Draft:
    """Collects a page's rows, which arrive in any order; each alignment is built as soon as its rows are there."""

    manifestation_id: str
    read_at_us: int
    exists: bool
    warn: Warn
    pairs: list[Pair] = field(default_factory=list)
    segmentation: Segmentation = field(default_factory=Segmentation)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, kind: str, annotation: str, other: str, target: str | None, columns: Columns) -> None:
        try:
            match kind:
                case "pair":
                    self._add_pair(annotation, other, target, columns)
                case "layer":
                    self._add_layer(annotation, columns)
                case "end":
                    pass
                case _:
                    raise ValueError(f"a row of the unknown kind {kind!r}")
        except PermanentError as error:
            self.problems.append((kind, str(error)))

    def page(self) -> Page:
        """Of several problems always the same one is told."""
        if self.problems:
            return Page(self.manifestation_id, self.read_at_us, self.exists, problem=min(self.problems)[1])
        pairs = sorted(self.pairs, key=attrgetter("annotation", "other", "target"))
        return Page(self.manifestation_id, self.read_at_us, self.exists, tuple(pairs), self.segmentation)

    def _add_pair(self, annotation: str, other: str, target: str | None, columns: Columns) -> None:
        """Add the pair, unless it leads to no text or to this very one."""
        where = f"alignment {annotation!r} - {other!r} of manifestation {self.manifestation_id!r}"
        if target is None:
            self.warn(f"annotation {other!r} belongs to no manifestation; its alignment is skipped")
        elif target != self.manifestation_id:
            for name in (annotation, other, target):
                _check_text(name, where)
            pair = Pair.from_columns(annotation, other, target, *_check_spans(columns, where, self.warn))
            if pair.given.chains:
                self.pairs.append(pair)

    def _add_layer(self, annotation: str, columns: Columns) -> None:
        """Add an annotation's segments. Most texts have one; it is kept compact while the rows of others come."""
        columns = check_layer(annotation, columns, self.manifestation_id, self.warn)
        if len(self.segmentation):
            columns = join_layers([self.segmentation.columns, columns])
        self.segmentation = Segmentation.from_columns(*columns)


def _check_spans(columns: Columns, where: str, warn: Warn) -> Columns:
    """Without those that lack a span; `PermanentError` when one is malformed."""
    starts, ends, lows, highs = columns
    if _are_spans(starts, ends) and _are_spans(lows, highs):
        return columns
    columns = _present(columns, f"{where} has segments without a span", warn)
    for start, end, low, high in zip(*columns, strict=True):
        _check_span(start, end, f"a segment of {where}")
        _check_span(low, high, f"a segment of {where}")
    return columns


def _present(columns: Columns, complaint: str, warn: Warn) -> Columns:
    """Without the rows in which something is absent."""
    rows = list(zip(*columns, strict=True))
    present = [row for row in rows if None not in row]
    if len(present) < len(rows):
        warn(f"{complaint}; they are skipped")
    return [[row[at] for row in present] for at in range(len(columns))]


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
