"""`explain` over a real graph: the stored answers, and what is typed wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.families import Family
from tests.support.answers import canonical, example_files, read_example
from tests.support.commands import Command

SMALL = next(path for path in example_files() if path.stem == "small_family")
CLOSED_PORT = 1


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_it_gives_the_stored_answers(path: Path, command: Command, load_graph: Callable[[Family], None]) -> None:
    family, questions = read_example(path)
    load_graph(family)
    for asked in questions:
        ran = command("explain", asked.manifestation_id, str(asked.start), str(asked.end), "--json")
        (line,) = ran.out.splitlines()
        assert canonical(json.loads(line)["related"]) == canonical(asked.related)


def test_it_tells_a_person(command: Command, load_graph: Callable[[Family], None]) -> None:
    load_graph(read_example(SMALL)[0])
    ran = command("explain", "root-bo", "0", "40")
    assert (ran.code, ran.err) == (0, "")
    assert "carried on: translation-en [0, 60)" in ran.out
    ran = command("explain", "root-bo", "999999", "999999")
    beyond = "The span reaches beyond root-bo, whose last segment ends at 220.\n"
    assert (ran.code, ran.err) == (0, f"{beyond}No segment of root-bo overlaps 999999 to 999999.\n")
    assert command("explain", "root-bo", "0", "221").err == beyond
    assert command("explain", "root-bo", "0", "220").err == ""
    assert ran.out.endswith("related: nothing\n")


def test_an_unknown_text_is_said_to_be_unknown(command: Command, load_graph: Callable[[Family], None]) -> None:
    load_graph(read_example(SMALL)[0])
    ran = command("explain", "no such text", "0", "1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "Manifestation 'no such text' does not exist in the graph\n"


def test_it_needs_the_graph_only(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTGRES_URL")
    monkeypatch.delenv("SQS_QUEUE_URL")
    monkeypatch.setenv("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}")
    ran = command("explain", "m", "0", "1")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("Neo4j does not answer")


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (("-1", "4"), "must be a whole number"),
        (("1.5", "4"), "must be a whole number"),
        (("5", "4"), "START must not be greater than END, 5 is greater than 4"),
        (("0", str(2**63)), "must be a whole number"),
        (("0",), "END"),
    ],
)
def test_a_wrong_span_is_a_usage_error(
    command: Command, capsys: pytest.CaptureFixture[str], span: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("explain", "m", *span)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
