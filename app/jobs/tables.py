"""Related segments as a table for a person: segment and span, related text, its segments.

Invariant: ids are shown whole, on more lines where they don't fit, so that each can be copied.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core.jobs import SegmentRecord
from app.logs import one_line

RECORDS_A_TABLE: Final = 50
"""A job may have 100,000 segments: the columns are fitted to so many at a time."""
UNBOUNDED: Final = 10**6
NAME, TARGET, RELATED = "SEGMENT, SPAN", "RELATED TEXT", "ITS SEGMENTS"


def print_relations(records: Iterable[SegmentRecord], console: Console) -> None:
    """All of them, a few at a time as they come; the header stands over the first."""
    for number, chunk in enumerate(batched(records, RECORDS_A_TABLE)):
        console.print(relations_table(chunk, header=number == 0, width=console.width))


def relations_table(records: Iterable[SegmentRecord], *, header: bool = True, width: int = UNBOUNDED) -> Table:
    """The records' segments with what is related to them; of one without a result its status and its error.

    Where id and span do not fit beside each other into `width` columns, the span stands below the id.
    """
    table = Table(box=box.SIMPLE, padding=0, pad_edge=False, show_edge=False, show_header=header)
    for name in (NAME, TARGET, RELATED):
        table.add_column(name, overflow="fold")
    rows = [(f"{one_line(record.segment_id)}\n{_span_of(record)}", list(_related(record))) for record in records]
    separator = " " if _natural_width(rows) <= width else "\n  "
    for name, related in rows:
        shown = name
        for target, segments in related:
            table.add_row(Text(shown), Text(target), Text("\n".join(separator.join(each) for each in segments)))
            shown = ""
        table.add_section()
    return table


type _Related = list[tuple[str, list[tuple[str, ...]]]]


def _natural_width(rows: Sequence[tuple[str, _Related]]) -> int:
    """What the rows take when nothing is folded, with a space between two columns."""
    names = [len(line) for name, _ in rows for line in name.splitlines()]
    targets = [len(target) for _, related in rows for target, _ in related]
    segments = [len(" ".join(each)) for _, related in rows for _, segments in related for each in segments]
    return sum(max(column, default=0) for column in (names, targets, segments)) + 2


def _related(record: SegmentRecord) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """(text, (id, span) of its segments) for each row of the table."""
    if record.related is None:
        yield f"({record.status})", [(one_line(record.error or ""),)]
        return
    related = json.loads(record.related)
    for each in related:
        segments: list[tuple[str, ...]] = [
            (one_line(segment["segment_id"]), format_span(segment["span"])) for segment in each["segments"]
        ]
        yield one_line(each["manifestation_id"]), segments or [("(has no segmentation)",)]
    if not related:
        yield "(none)", []


def _span_of(record: SegmentRecord) -> str:
    return "" if record.start is None else format_span({"start": record.start, "end": record.end})


def format_span(span: Mapping[str, Any]) -> str:
    """Half-open, as everywhere."""
    return f"[{span['start']}, {span['end']})"
