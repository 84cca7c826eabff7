"""Relations straight from the graph over HTTP: the stored answers of every example, and each way to ask wrongly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import neo4j
import pytest

from app.jobs.live import PAGE_SECONDS, LiveRelations
from app.jobs.wiring import LazyParts
from app.neo4j_database import Neo4JDatabase
from app.relation import app
from app.web.parts import get_parts
from devstack.families import SMALL_FAMILY_PATH, Family
from devstack.stack import Stack
from tests.support.answers import canonical, decoded, example_files, read_example
from tests.support.engine import Engine
from tests.support.in_process import ask
from tests.support.jobs import rows

TEXT = "root-bo"
FAMILY = Family.from_json(SMALL_FAMILY_PATH)
CLOSED_PORT = 1

type Related = Callable[..., httpx.Response]


@pytest.fixture
def related(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Related]:
    """What the app answers about a text, with services of its own, whose pages nobody else has read."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parts = LazyParts()
    app.dependency_overrides[get_parts] = lambda: parts
    yield lambda text, **params: ask(f"/relation/{quote(text, safe='')}/segments", params=params)
    app.dependency_overrides.clear()
    parts.close()


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
def test_every_stored_answer_of_the_examples(
    related: Related, load_graph: Callable[[Family], None], engine: Engine, path: Path
) -> None:
    family, questions = read_example(path)
    load_graph(family)
    for asked in questions:
        answer = related(asked.manifestation_id, start=asked.start, end=asked.end)
        assert answer.status_code == 200, answer.text
        assert canonical(answer.json()) == canonical(asked.related), asked
    assert rows(engine, "SELECT * FROM root_job") == []


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({}, ("start", "end"), "start is missing; end is missing"),
        ({"start": 1}, ("end",), "end is missing"),
        ({"start": -1, "end": 5}, ("start",), "start should be greater than or equal to 0"),
        ({"start": 0, "end": "x"}, ("end",), "end should be a valid integer"),
        ({"start": 0.5, "end": 1}, ("start",), "start should be a valid integer"),
        ({"start": 0, "end": 2**63}, ("end",), "end should be less than or equal to"),
        ({"start": 6, "end": 5}, ("start",), "start must not be greater than end: it is 6, end is 5"),
        (
            {"start": 0, "end": 100_000},
            ("end",),
            "end 100000 is outside the text 'root-bo', whose last",
        ),
        ({"start": 100_000, "end": 100_000}, ("start",), "start 100000 is outside the text 'root-bo'"),
    ],
)
def test_a_span_that_cannot_be_is_422_and_named(
    related: Related, load_graph: Callable[[Family], None], asked: dict[str, Any], field: tuple[str, ...], words: str
) -> None:
    load_graph(FAMILY)
    answer = related(TEXT, **asked)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert tuple(each["field"] for each in answer.json()["errors"]) == field
    assert words in answer.json()["detail"]


def test_an_unknown_text_is_404_and_one_without_segments_has_no_relations(
    related: Related, load_graph: Callable[[Family], None]
) -> None:
    load_graph(Family(("bare",), (), (), (), ()))
    span = {"start": 0, "end": 5}
    for text, words in (("nobody", "'nobody' does not exist"), ("a\x00b", "NUL"), ("x" * 513, "1 to 512 bytes")):
        answer = related(text, **span)
        assert (answer.status_code, words in answer.json()["detail"]) == (404, True), answer.text
    answer = related("bare", **span)
    assert (answer.status_code, answer.json()) == (200, [])


def test_the_ends_of_a_text_are_inside_it(related: Related, load_graph: Callable[[Family], None]) -> None:
    load_graph(FAMILY)
    last = max(segment.end for segment in FAMILY.job_segments(TEXT))
    assert related(TEXT, start=0, end=last).json() != []
    assert related(TEXT, start=last, end=last).status_code == 200


@pytest.mark.parametrize(
    ("variable", "value", "status", "words"),
    [
        ("NEO4J_URI", f"bolt://127.0.0.1:{CLOSED_PORT}", 503, "Neo4j does not answer"),
        ("NEO4J_PASSWORD", "wrong", 503, "Neo4j does not answer: Neo.ClientError.Security.Unauthorized"),
        ("NEO4J_PASSWORD", "", 500, "the service's settings are not usable"),
    ],
)
def test_a_graph_that_cannot_be_read_is_said_so(
    related: Related, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, status: int, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    answer = related(TEXT, start=0, end=1)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(words)


def test_it_needs_neither_postgres_nor_a_queue(
    related: Related, load_graph: Callable[[Family], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(FAMILY)
    monkeypatch.setenv("POSTGRES_URL", f"postgresql://u:hidden@127.0.0.1:{CLOSED_PORT}/d")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{CLOSED_PORT}")
    assert related(TEXT, start=0, end=1).status_code == 200


def test_pages_are_kept_for_half_a_minute_and_no_longer(
    stack: Stack, load_graph: Callable[[Family], None], driver: neo4j.Driver
) -> None:
    from app.caching.memory import MemoryTier
    from app.caching.tiers import PageCache

    load_graph(FAMILY)
    environment = stack.env()
    graph = Neo4JDatabase(environment["NEO4J_URI"], environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    now = [1_000_000.0]
    live = LiveRelations(PageCache(graph, MemoryTier(10_000_000)), clock=lambda: now[0])
    before = decoded(live.relate(TEXT, 0, 40))
    driver.execute_query("MATCH (:Segment)-[r:ALIGNED_TO]-(:Segment) DELETE r")
    now[0] += PAGE_SECONDS - 1
    assert decoded(live.relate(TEXT, 0, 40)) == before
    now[0] += 2
    assert decoded(live.relate(TEXT, 0, 40)) == []
    graph.close()
