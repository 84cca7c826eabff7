"""A job as JSON lines, CSV and TEI: read back by parsers that are not ours, whatever the ids contain."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.jobs import Job, SegmentRecord
from app.jobs.formats import CSV_COLUMNS, FORMATS
from tests.support.records import JOB, NOW, RECORDS, RELATED

TEI = "{http://www.tei-c.org/ns/1.0}"
ids = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1)


def written(name: str, records: Iterable[SegmentRecord], job: Job = JOB) -> str:
    return "".join(FORMATS[name](job, records))


def test_csv_has_a_row_for_each_related_segment() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", RECORDS), newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [tuple(row.values()) for row in rows] == [
        ("s1", "0", "5", "COMPLETED", "other", "o,1", "3", "9", ""),
        ("s1", "0", "5", "COMPLETED", "bare", "", "", "", ""),
        ("s2", "5", "9", "FAILED", "", "", "", "", 'broken "here"\n'),
        ("s3", "", "", "QUEUED", "", "", "", "", ""),
    ]


def test_tei_has_a_link_group_for_each_segment_with_relations() -> None:
    root = ElementTree.fromstring(written("tei", RECORDS))
    assert root.tag == f"{TEI}TEI"
    assert root.findtext(f".//{TEI}title") == "Segments related to text & <one>"
    (group,) = root.findall(f"{TEI}standOff/{TEI}linkGrp")
    assert (group.get("n"), group.get("corresp")) == ("s1", "text%20%26%20%3Cone%3E#char=0,5")
    assert [(link.get("n"), link.get("target")) for link in group] == [
        ("o,1", "text%20%26%20%3Cone%3E#char=0,5 other#char=3,9"),
        (None, "text%20%26%20%3Cone%3E#char=0,5 bare"),
    ]


def test_json_lines_are_those_of_a_pipe() -> None:
    lines = [json.loads(line) for line in written("jsonl", RECORDS).splitlines()]
    assert lines[0]["related"] == RELATED
    assert [line["status"] for line in lines] == ["COMPLETED", "FAILED", "QUEUED"]


@given(ids, ids, ids)
@example("0", "0", "\r")
def test_no_id_breaks_a_format(text: str, segment: str, target: str) -> None:
    related = [{"manifestation_id": target, "segments": [{"segment_id": segment, "span": {"start": 0, "end": 1}}]}]
    record = SegmentRecord(segment, 0, 1, "COMPLETED", json.dumps(related), None)
    job = Job(JOB.job_id, text, 1, 1, 0, "COMPLETED", NOW, NOW, None)
    (line,) = written("jsonl", [record], job).split("\n")[:-1]
    assert json.loads(line)["segment_id"] == segment
    rows = list(csv.reader(io.StringIO(written("csv", [record], job), newline="")))
    assert [(row[0], row[4], row[5]) for row in rows[1:]] == [(segment, target, segment)]
    (link,) = ElementTree.fromstring(written("tei", [record], job)).iter(f"{TEI}link")
    one, other = (link.get("target") or "").split(" ")
    assert [unquote(each.removesuffix("#char=0,1")) for each in (one, other)] == [text, target]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_written_as_the_records_come(name: str) -> None:
    read = 0

    def endless() -> Iterator[SegmentRecord]:
        nonlocal read
        while True:
            read += 1
            yield RECORDS[0]

    pieces = FORMATS[name](JOB, endless())
    for _ in range(10):
        next(pieces)
    assert read <= 10


@pytest.mark.parametrize("name", FORMATS)
def test_a_job_without_segments_is_well_formed_too(name: str) -> None:
    text = written(name, [])
    if name == "tei":
        (stand_off,) = ElementTree.fromstring(text).findall(f"{TEI}standOff")
        assert [each.tag for each in stand_off] == [f"{TEI}note"]
    else:
        assert len(text.splitlines()) == (name == "csv")
