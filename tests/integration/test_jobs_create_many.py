"""`create` of several texts and of all, and `show` in each format, on the real services."""

import csv
import io
import json
import uuid
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.commands import Command, at_a_terminal
from tests.support.engine import Engine
from tests.support.jobs import claimed, complete, make_job, rows
from tests.support.services import Queues

FAMILY = Family.from_json(SMALL_FAMILY_PATH)
WITH_SEGMENTS = sorted(text for text in FAMILY.manifestations if FAMILY.job_segments(text))


def texts(engine: Engine) -> list[str]:
    return [row[0] for row in rows(engine, "SELECT manifestation_id FROM root_job ORDER BY created_at")]


def test_several_texts_each_get_a_job(
    command: Command, engine: Engine, queues: Queues, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    chosen = WITH_SEGMENTS[:2]
    ran = command("create", chosen[1], chosen[0], chosen[1])
    assert ran.code == 0
    assert len({uuid.UUID(line) for line in ran.out.splitlines()}) == 2
    assert texts(engine) == [chosen[1], chosen[0]]
    assert queues.segments.facts().messages == sum(len(FAMILY.job_segments(text)) for text in chosen)


def test_a_text_that_is_unknown_keeps_no_other_back(
    command: Command, engine: Engine, load_graph: Callable[[Family], None]
) -> None:
    load_graph(FAMILY)
    ran = command("create", "no such text", WITH_SEGMENTS[0])
    assert ran.code == 1
    assert ran.err.startswith("The manifestation 'no such text' does not exist in the graph\n")
    assert (len(ran.out.splitlines()), texts(engine)) == (1, [WITH_SEGMENTS[0]])


def test_all_are_those_that_have_segments(
    command: Command, engine: Engine, load_graph: Callable[[Family], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(FAMILY)
    monkeypatch.setattr("app.neo4j_database.MAX_TEXTS_A_QUERY", 2)
    assert command("create", "--all").code == 0
    assert len(WITH_SEGMENTS) > 2
    assert texts(engine) == WITH_SEGMENTS


def test_an_empty_graph_has_none(command: Command, load_graph: Callable[[Family], None]) -> None:
    load_graph(Family((), (), (), (), ()))
    ran = command("create", "--all")
    assert (ran.code, ran.out, ran.err) == (1, "", "The graph has no manifestation that has segments\n")


def test_all_and_a_name_exclude_each_other(command: Command) -> None:
    with pytest.raises(SystemExit) as ended:
        command("create", "--all", "a")
    assert ended.value.code == 2


def test_show_in_each_format(command: Command, environment: dict[str, str], engine: Engine) -> None:
    job_id = make_job(engine, 2)
    complete(engine, claimed(engine, job_id, ["s00000"]))
    out = command("show", job_id, "--format", "csv").out
    assert [row["related_segment_id"] for row in csv.DictReader(io.StringIO(out))] == ["o1", ""]
    ran = command("show", job_id, "--format", "tei")
    assert len(list(ElementTree.fromstring(ran.out).iter("{http://www.tei-c.org/ns/1.0}link"))) == 1
    assert ran.err == f"1 segments of job {job_id} have no result and are left out.\n"
    assert command("show", job_id, "--format", "jsonl").out == command("show", job_id).out
    line = at_a_terminal(environment, "show", job_id, "--format", "jsonl").splitlines()[0]
    assert json.loads(line)["segment_id"] == "s00000"
    with pytest.raises(SystemExit):
        command("show", job_id, "--format", "tei", "--json")
