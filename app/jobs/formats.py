"""A job's segments with their results as text: JSON lines, CSV, TEI. Written as the records come.

Invariant: whatever an id contains, each format stays well-formed, and no more than one record is held.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from app.core.jobs import Job, SegmentRecord
from app.jobs.as_json import record_line

CSV_COLUMNS: Final = (
    "segment_id", "start", "end", "status", "related_manifestation_id", "related_segment_id", "related_start",
    "related_end", "error",
)  # fmt: skip
TEI_HEAD: Final = """<?xml version="1.0" encoding="UTF-8"?>
<TEI xmlns="http://www.tei-c.org/ns/1.0">
  <teiHeader>
    <fileDesc>
      <titleStmt><title>Segments related to {text}</title></titleStmt>
      <publicationStmt><p>Job {job_id}, {status}, made {created}</p></publicationStmt>
      <sourceDesc><p>Alignments of {text}</p></sourceDesc>
    </fileDesc>
  </teiHeader>
  <standOff>
    <note>A link group for each segment that has relations, a link for each segment that is related to it.</note>
"""
"""The note stays alone where nothing is related: TEI allows no empty `standOff`."""
TEI_TAIL: Final = "  </standOff>\n</TEI>\n"
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

type Writer = Callable[[Job, Iterable[SegmentRecord]], Iterator[str]]


def to_json_lines(_job: Job, records: Iterable[SegmentRecord]) -> Iterator[str]:
    """One object a segment (docs/commands.md)."""
    for record in records:
        yield f"{record_line(record)}\n"


def to_csv(_job: Job, records: Iterable[SegmentRecord]) -> Iterator[str]:
    """A header, then a row for each related segment; one row, without, for a segment that has none."""
    yield _csv_row(CSV_COLUMNS)
    for record in records:
        own = (record.segment_id, record.start, record.end, record.status)
        for related in _related(record) or [("", "", "", "")]:
            yield _csv_row((*own, *related, record.error or ""))


def _csv_row(values: Iterable[Any]) -> str:
    """With the line end of RFC 4180: the writer quotes a value for the characters of its own line end only."""
    row = io.StringIO()
    csv.writer(row, lineterminator="\r\n").writerow(values)
    return row.getvalue()


def to_tei(job: Job, records: Iterable[SegmentRecord]) -> Iterator[str]:
    """A `standOff` with a `linkGrp` for each segment that has relations, a `link` in it for each related segment.

    Pointers are URIs: the text's id and the span as characters (RFC 5147). `n` holds the segments' own ids.
    """
    text = _xml_text(job.manifestation_id)
    yield TEI_HEAD.format(text=text, job_id=job.job_id, status=job.status, created=job.created_at.isoformat())
    for record in records:
        yield "".join(_tei_group(job.manifestation_id, record))
    yield TEI_TAIL


def _tei_group(manifestation_id: str, record: SegmentRecord) -> Iterator[str]:
    related = _related(record)
    if not related:
        return
    own = _pointer(manifestation_id, record.start, record.end)
    yield f'    <linkGrp type="related" n={_attribute(record.segment_id)} corresp={_attribute(own)}>\n'
    for target, segment_id, start, end in related:
        n = f" n={_attribute(segment_id)}" if segment_id else ""
        yield f"      <link{n} target={_attribute(f'{own} {_pointer(target, start, end)}')}/>\n"
    yield "    </linkGrp>\n"


def _related(record: SegmentRecord) -> list[tuple[str, str, Any, Any]]:
    """(text, segment, start, end) of each related segment; of a text without segmentation the text alone."""
    rows: list[tuple[str, str, Any, Any]] = []
    texts: list[Mapping[str, Any]] = json.loads(record.related or "[]")
    for text in texts:
        target = text["manifestation_id"]
        rows += [(target, s["segment_id"], s["span"]["start"], s["span"]["end"]) for s in text["segments"]] or [
            (target, "", "", "")
        ]
    return rows


def _pointer(manifestation_id: str, start: Any, end: Any) -> str:
    text = quote(manifestation_id, safe="")
    return text if start in (None, "") else f"{text}#char={start},{end}"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text))


def _xml_text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


FORMATS: Final[Mapping[str, Writer]] = {"jsonl": to_json_lines, "csv": to_csv, "tei": to_tei}
