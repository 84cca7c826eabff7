"""What the validator says of a sound graph and of a damaged one."""

from collections.abc import Callable, Iterator

import neo4j
import pytest

from app import neo4j_database_validator as validator
from app.errors import OutageError
from app.neo4j_database import Neo4JDatabase
from app.neo4j_database_validator import main, validate
from devstack.families import CONSTRAINTS, Family, empty_graph
from devstack.stack import Stack
from tests.support.answers import EXAMPLES

SMALL = Family.from_json(EXAMPLES / "small_family.json")
DAMAGE = """
MATCH (a:Annotation {id: 'alone.segmentation'})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd1'})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd2', span_start: 3})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd3', span_start: '0', span_end: '5'})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd4', span_start: 0.0, span_end: 5.0})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd5', span_start: -1, span_end: 5})
CREATE (a)<-[:SEGMENTATION_OF]-(:Segment {id: 'd6', span_start: 6, span_end: 5})
CREATE (:Segment {id: 'd7', span_start: 0, span_end: 5})
CREATE (:Annotation {id: 'lost'})
CREATE (:Manifestation {id: 17})
"""


@pytest.fixture
def graph(stack: Stack) -> Iterator[Neo4JDatabase]:
    environment = stack.env()
    database = Neo4JDatabase(environment["NEO4J_URI"], environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    yield database
    database.close()


@pytest.fixture
def small(load_graph: Callable[[Family], None], driver: neo4j.Driver) -> Iterator[None]:
    load_graph(SMALL)
    yield
    empty_graph(driver)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.usefixtures("small")
def test_a_sound_graph_gives_no_findings(full: bool, graph: Neo4JDatabase) -> None:
    assert validate(graph, full) == []


@pytest.mark.usefixtures("small")
def test_every_kind_of_damage_is_said_in_words(graph: Neo4JDatabase, driver: neo4j.Driver) -> None:
    driver.execute_query(DAMAGE)
    assert sorted(validate(graph, full=True)) == [
        "1 annotations belong to no manifestation, for example 'lost'.",
        "1 annotations have no type, for example 'lost'.",
        "1 manifestations have an id that is not text, or none, for example '17'.",
        "1 segments belong to no annotation, for example 'd7'.",
        "1 segments have a negative span, for example 'd5'.",
        "1 segments have a reversed span, for example 'd6'.",
        "2 segments have a span that is not made of integers, for example 'd3'.",
        "2 segments have no span, for example 'd1'.",
    ]


@pytest.mark.usefixtures("small")
def test_at_start_only_a_sample_is_looked_at(
    graph: Neo4JDatabase, driver: neo4j.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.execute_query("MATCH (s:Segment) REMOVE s.span_end")
    monkeypatch.setattr(validator, "SAMPLE_NODES", 5)
    (finding,) = validate(graph, full=False)
    assert finding.startswith("5 segments have no span among the first 5 looked at, for example ")


def test_of_an_empty_graph_everything_is_missing(graph: Neo4JDatabase, driver: neo4j.Driver) -> None:
    empty_graph(driver)
    findings = "\n".join(validate(graph, full=False))
    for name in ("label Manifestation", "label Segment", "relationship type ALIGNED_TO", "AnnotationType named"):
        assert name in findings


@pytest.mark.usefixtures("small")
def test_a_missing_constraint_is_named(graph: Neo4JDatabase, driver: neo4j.Driver) -> None:
    driver.execute_query("DROP CONSTRAINT segment_id")
    try:
        (finding,) = validate(graph, full=False)
    finally:
        for statement in CONSTRAINTS:
            driver.execute_query(statement)
    assert "no uniqueness constraint on Segment.id" in finding


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("query", ["UNWIND range(1, 1000000000) AS x RETURN sum(x)", "CALL not.allowed.to.us()"])
def test_what_cannot_be_looked_at_is_a_finding(
    query: str, graph: Neo4JDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validator, "FAULTS", (("segments", query),))
    monkeypatch.setattr(validator, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(validator, "_find_absent_names", lambda *_: [])
    findings = validate(graph, full=False)
    assert len(findings) == 1
    assert findings[0].startswith("Not everything could be looked at: ")


def test_an_outage_is_not_a_finding() -> None:
    graph = Neo4JDatabase("bolt://127.0.0.1:1", "neo4j", "x")
    with pytest.raises(OutageError):
        validate(graph, full=False)
    graph.close()


@pytest.mark.usefixtures("small")
def test_the_command_tells_by_its_exit_code(
    stack: Stack, driver: neo4j.Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    assert "NEO4J_URI is not set" in capsys.readouterr().err
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    driver.execute_query(DAMAGE)
    assert main(["--full"]) == 1
    assert "2 segments have no span" in capsys.readouterr().out
    monkeypatch.setenv("NEO4J_URI", "bolt://127.0.0.1:1")
    assert main([]) == 2
    assert "Neo4j does not answer" in capsys.readouterr().err
