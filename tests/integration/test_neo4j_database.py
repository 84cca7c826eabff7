"""The graph adapter on the real Neo4j: what it reads, what it costs, and what its failures are called."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any, LiteralString

import neo4j
import pytest
from hypothesis import HealthCheck, given, settings

from app import neo4j_database
from app import neo4j_quries as queries
from app.caching.tiers import PageCache
from app.core.segments import Start
from app.errors import (
    ConfigurationError,
    OutageError,
    PermanentError,
    QueryTimeoutError,
    RefusedError,
    TransientError,
)
from app.graph import page_reading
from app.graph import session as neo4j_session
from app.graph.session import Reader, open_driver
from app.neo4j_database import Neo4JDatabase
from app.neo4j_quries import READ_PAGES
from app.pages.reading import Patience, Reading
from app.pages.walk import PageSource, walk_together
from bench.reference import reference_walk
from devstack.families import Annotation, Family, Segment, empty_graph, load_family
from devstack.proxy import Proxy
from devstack.stack import Stack
from tests.support.answers import EXAMPLES, canonical, decoded, example_files, read_example
from tests.support.graphs import page_of
from tests.support.strategies import Question, asked_families

ROOT = Path(__file__).resolve().parents[2]
SMALL = Family.from_json(EXAMPLES / "small_family.json")
Load = Callable[[Family], None]


@pytest.fixture(scope="module")
def graph(stack: Stack) -> Iterator[Neo4JDatabase]:
    """The adapter on the tests' Neo4j."""
    database = database_at(stack)
    yield database
    database.close()


@pytest.fixture
def proxy(stack: Stack) -> Iterator[Proxy]:
    """A proxy before the tests' Neo4j."""
    with Proxy.before(stack.env()["NEO4J_URI"]) as proxy:
        yield proxy


def database_at(stack: Stack, uri: str | None = None, password: str | None = None) -> Neo4JDatabase:
    environment = stack.env()
    return Neo4JDatabase(
        uri or environment["NEO4J_URI"], environment["NEO4J_USER"], password or environment["NEO4J_PASSWORD"]
    )


def start_at(name: str, start: int = 0, end: int = 10**6, made_at: int = 1) -> Start:
    return Start(name, start, end, fresh_since_us=made_at, read_at_us=made_at + 1)


@pytest.mark.parametrize("path", example_files(), ids=lambda path: path.stem)
@pytest.mark.parametrize("cache", ["no cache", "memory", "memory and Dragonfly"])
def test_every_example_is_answered_as_given(
    path: Path, cache: str, graph: Neo4JDatabase, stack: Stack, load_graph: Load
) -> None:
    family, questions = read_example(path)
    load_graph(family)
    url = stack.env()["DRAGONFLY_URL"] if "Dragonfly" in cache else None
    pages: PageSource = graph
    if cache != "no cache":
        # As of a new moment each time, so that pages of the other examples are too old.
        pages = PageCache.connect(graph, memory_bytes=10**8, url=url, ttl_seconds=60, secret="x", clock_id="")
    made_at = next(_moments)
    starts = [start_at(row.manifestation_id, row.start, row.end, made_at) for row in questions]
    for _ in range(2):
        answers = walk_together(starts, pages)
        assert [canonical(decoded(answer)) for answer in answers] == [canonical(row.related) for row in questions]


_moments = count(time.time_ns() // 1000, 10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=asked_families(damaged=True))
def test_pages_and_answers_of_any_family_are_those_in_memory(
    asked: tuple[Family, list[Question]], graph: Neo4JDatabase, load_graph: Load
) -> None:
    family, questions = asked
    load_graph(family)
    names = [*family.manifestations, "nowhere"]
    assert graph.load_pages(dict.fromkeys(names, 0), Reading(5)) == {name: page_of(family, name, 5) for name in names}
    answers = walk_together([start_at(*question) for question in questions], graph)
    for question, answer in zip(questions, answers, strict=True):
        assert decoded(answer) == reference_walk(family, *question)


def test_a_changed_alignment_is_seen_by_the_next_job_with_a_warm_cache(
    graph: Neo4JDatabase, stack: Stack, driver: neo4j.Driver, load_graph: Load
) -> None:
    load_graph(SMALL)
    first = next(_moments)
    pages = PageCache.connect(
        graph, memory_bytes=10**8, url=stack.env()["DRAGONFLY_URL"], ttl_seconds=60, secret="x", clock_id=""
    )
    (before,) = map(decoded, walk_together([start_at("root-bo", 0, 40, first)], pages))
    driver.execute_query("MATCH (:Annotation {id: 'en-root.left'})-[r:ALIGNED_TO]-() DELETE r")
    (again,) = map(decoded, walk_together([start_at("root-bo", 0, 40, first)], pages))
    assert again == before
    (after,) = map(decoded, walk_together([start_at("root-bo", 0, 40, next(_moments))], pages))
    changed = Family.from_graph({**SMALL.to_graph(), "aligned_annotations": SMALL.aligned_annotations[1:]})
    assert after == reference_walk(changed, "root-bo", 0, 40)
    assert after != before


def test_both_directions_and_both_at_once_are_one_alignment(
    graph: Neo4JDatabase, driver: neo4j.Driver, load_graph: Load
) -> None:
    load_graph(SMALL)
    driver.execute_query("MATCH (a:Annotation)-[:ALIGNED_TO]->(b) MERGE (b)-[:ALIGNED_TO]->(a)")
    driver.execute_query("MATCH (a:Segment)-[:ALIGNED_TO]->(b) MERGE (b)-[:ALIGNED_TO]->(a)")
    for name, page in graph.load_pages(dict.fromkeys(SMALL.manifestations, 0), Reading(5)).items():
        assert page == page_of(SMALL, name, 5)


def test_what_is_at_hand_hides_no_annotation_that_lost_its_id(
    graph: Neo4JDatabase, driver: neo4j.Driver, load_graph: Load
) -> None:
    load_graph(SMALL)
    at_hand = [page_of(SMALL, "root-bo", 5)]
    driver.execute_query("MATCH (a:Annotation {id: 'en-root.right'}) REMOVE a.id")
    page = graph.load_pages(dict.fromkeys(["translation-en"], 0), Reading(5, at_hand))["translation-en"]
    assert "alignment 'en-root.left' - None of manifestation 'translation-en'" in page.problem


def test_an_unknown_start_and_malformed_data_fail_alone(
    graph: Neo4JDatabase, driver: neo4j.Driver, load_graph: Load
) -> None:
    load_graph(SMALL)
    driver.execute_query("MATCH (s:Segment {id: 'alone.segmentation.0'}) SET s.span_start = 'zero'")
    starts = [start_at("nowhere"), start_at("alone"), start_at("root-bo", 0, 40)]
    unknown, malformed, fine = walk_together(starts, graph)
    assert isinstance(unknown, PermanentError)
    assert "'nowhere'" in str(unknown)
    assert isinstance(malformed, PermanentError)
    assert "'alone.segmentation.0' of manifestation 'alone'" in str(malformed)
    assert decoded(fine)


def test_each_walk_is_announced_also_when_every_page_is_cached(
    graph: Neo4JDatabase, load_graph: Load, caplog: pytest.LogCaptureFixture
) -> None:
    load_graph(SMALL)
    pages = PageCache.connect(graph, memory_bytes=10**8, url=None, ttl_seconds=60, secret="x", clock_id="")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            walk_together([start_at("root-bo"), start_at("alone")], pages)
    lines = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == 2 * [
        ("app.neo4j_database", "INFO", "Starting BFS traversal from manifestation root-bo"),
        ("app.neo4j_database", "INFO", "Starting BFS traversal from manifestation alone"),
    ]


def test_what_is_skipped_is_said_once(graph: Neo4JDatabase, load_graph: Load, caplog: pytest.LogCaptureFixture) -> None:
    family = Family(
        ("M", "T"),
        (Annotation("a", "M", "alignment"), Annotation("b", "T", "alignment"), Annotation("s", "M", "segmentation")),
        (Segment("a1", "a", 0, 5), Segment("b1", "b", 0, 5), Segment("l1", "lost", 0, 5)),
        (("a", "lost"), ("b", "a")),
        (("a1", "l1"), ("a1", "b1"), ("bare", "b1")),
        orphan_annotations=(("lost", "alignment"),),
        spanless_segments=(("bare", "a"), ("none", "s")),
    )
    load_graph(family)
    expected = {"M": page_of(family, "M", 5)}
    caplog.clear()
    with caplog.at_level(logging.WARNING, "app"):
        for _ in range(2):
            assert graph.load_pages(dict.fromkeys(["M"], 0), Reading(5)) == expected
    assert sorted(record.getMessage() for record in caplog.records) == [
        "alignment 'a' - 'b' of manifestation 'M' has segments without a span; they are skipped",
        "annotation 'lost' belongs to no manifestation; its alignment is skipped",
        "annotation 's' has segments without an id or a span; they are skipped",
    ]


def test_jobs_are_cut_from_the_segmentation_or_else_the_pagination(
    graph: Neo4JDatabase, load_graph: Load, driver: neo4j.Driver
) -> None:
    load_graph(SMALL)
    driver.execute_query("CREATE (:Manifestation {id: 'bare'})")
    for name in ("root-bo", "index-zh"):
        expected = sorted((row.start, row.id, row.end) for row in SMALL.job_segments(name))
        segments = graph.list_segments(name)
        assert segments is not None
        assert [(row.start, row.segment_id, row.end) for row in segments] == expected
    assert graph.list_segments("bare") == []
    assert graph.list_segments("nowhere") is None


def test_segments_of_two_segmentations_count_once_and_those_without_a_span_do_not(
    graph: Neo4JDatabase, load_graph: Load, driver: neo4j.Driver
) -> None:
    two = Family(
        ("M",),
        (Annotation("one", "M", "segmentation"), Annotation("two", "M", "segmentation")),
        (Segment("b", "one", 0, 5), Segment("a", "one", 0, 9), Segment("c", "two", 5, 9)),
        (),
        (),
        spanless_segments=(("none", "two"),),
    )
    load_graph(two)
    driver.execute_query("MATCH (s:Segment {id: 'b'}), (a:Annotation {id: 'two'}) MERGE (s)-[:SEGMENTATION_OF]->(a)")
    assert graph.list_segments("M") == [("a", 0, 9), ("b", 0, 5), ("c", 5, 9)]
    assert len(graph.load_pages(dict.fromkeys(["M"], 0), Reading(1))["M"].segmentation) == 3
    driver.execute_query("MATCH (s:Segment {id: 'b'}) SET s.span_end = -1")
    with pytest.raises(PermanentError, match="'b' of manifestation 'M'"):
        graph.list_segments("M")


def test_spans_are_found_for_the_segments_that_have_one(
    graph: Neo4JDatabase, load_graph: Load, driver: neo4j.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(SMALL)
    driver.execute_query("MATCH (s:Segment {id: 'alone.segmentation.0'}) SET s.span_start = NULL")
    driver.execute_query("MATCH (s:Segment {id: 'root-bo.segmentation.0'}) SET s.span_start = 'x'")
    driver.execute_query("MATCH (s:Segment {id: 'root-bo.segmentation.1'}) SET s.span_start = s.span_end + 1")
    monkeypatch.setattr(neo4j_database, "MAX_SPANS_A_QUERY", 7)
    broken = {"alone.segmentation.0", "root-bo.segmentation.0", "root-bo.segmentation.1"}
    expected = {row.id: (row.start, row.end) for row in SMALL.segments if row.id not in broken}
    assert graph.find_spans([row.id for row in SMALL.segments] + ["nowhere"]) == expected
    assert graph.find_spans([]) == {}


def test_a_frontier_is_one_round_trip_and_a_large_one_comes_in_chunks(
    stack: Stack, proxy: Proxy, load_graph: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(SMALL)
    graph = database_at(stack, f"bolt://127.0.0.1:{proxy.port}")
    graph.ping()
    before = proxy.counters().round_trips
    graph.load_pages(dict.fromkeys(SMALL.manifestations, 0), Reading(1))
    assert proxy.counters().round_trips - before == 1
    monkeypatch.setattr(page_reading, "MAX_PAGES_A_QUERY", 2)
    before = proxy.counters().round_trips
    assert set(graph.load_pages(dict.fromkeys(SMALL.manifestations, 0), Reading(1))) == set(SMALL.manifestations)
    assert proxy.counters().round_trips - before == len(SMALL.manifestations) / 2
    graph.close()


def test_what_a_page_costs_does_not_depend_on_the_rest_of_the_graph(driver: neo4j.Driver, load_graph: Load) -> None:
    load_graph(SMALL)
    alone = database_hits(driver, "root-bo")
    load_family(driver, many_texts(3_000))
    driver.execute_query("CALL db.clearQueryCaches()")
    driver.execute_query("CALL db.prepareForReplanning(60)")
    assert database_hits(driver, "root-bo") <= 1.5 * alone


def database_hits(driver: neo4j.Driver, name: str) -> int:
    """What the database looked at to read one page."""
    _, summary, _ = driver.execute_query(f"PROFILE {READ_PAGES}", wanted=[{"id": name, "known": []}])
    plans, hits = [summary.profile], 0
    while plans:
        plan = plans.pop()
        assert plan is not None
        hits += plan.get("dbHits", 0)
        plans += plan.get("children", [])
    assert hits > 0
    return hits


def many_texts(number: int) -> Family:
    """Texts with an alignment annotation and a segmentation each."""
    names = [f"text-{at}" for at in range(number)]
    kinds = ("alignment", "segmentation")
    annotations = tuple(Annotation(f"{name}.{kind}", name, kind) for name in names for kind in kinds)
    return Family(tuple(names), annotations, tuple(Segment(f"{a.id}.0", a.id, 0, 5) for a in annotations), (), ())


def test_an_empty_graph_is_no_failure_and_nothing_is_said(
    stack: Stack, load_graph: Load, caplog: pytest.LogCaptureFixture
) -> None:
    graph = database_at(stack)
    load_graph(
        replace(SMALL, manifestations=(), annotations=(), segments=(), aligned_annotations=(), aligned_segments=())
    )
    with caplog.at_level(logging.INFO, "neo4j"), caplog.at_level(logging.WARNING, "app"):
        assert not graph.load_pages(dict.fromkeys(["nowhere"], 0), Reading(1))["nowhere"].exists
        assert graph.list_segments("nowhere") is None
    assert [record.getMessage() for record in caplog.records] == []
    graph.close()


def test_a_server_that_is_not_there_is_an_outage(stack: Stack, proxy: Proxy) -> None:
    graph = database_at(stack, f"bolt://127.0.0.1:{proxy.port}")
    proxy.cut()
    for act in (graph.ping, lambda: walk_together([start_at("M")], graph), lambda: graph.list_segments("M")):
        with pytest.raises(OutageError) as caught:
            act()
        assert caught.value.service == "Neo4j"
        assert stack.env()["NEO4J_PASSWORD"] not in str(caught.value)
    graph.close()


def test_connections_that_were_cut_meanwhile_are_replaced_without_a_failure(
    stack: Stack, proxy: Proxy, load_graph: Load
) -> None:
    load_graph(SMALL)
    graph = database_at(stack, f"bolt://127.0.0.1:{proxy.port}")
    for _ in range(2):
        assert graph.load_pages(dict.fromkeys(["root-bo"], 0), Reading(1))["root-bo"].exists
        proxy.cut()
        proxy.heal()
    assert graph.load_pages(dict.fromkeys(["root-bo"], 0), Reading(1))["root-bo"].exists
    graph.close()


def test_a_server_that_stops_answering_is_an_outage_within_its_bound(
    stack: Stack, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neo4j_session, "ANSWER_MARGIN_SECONDS", 0.2)
    monkeypatch.setattr(neo4j_session, "PING_TIMEOUT_SECONDS", 0.3)
    graph = database_at(stack, f"bolt://127.0.0.1:{proxy.port}")
    graph.ping()
    proxy.black_hole()
    with pytest.raises(OutageError, match="no answer within"):
        graph.read_rows("RETURN 1", seconds=0.3)
    with pytest.raises(OutageError, match="no answer within"):
        graph.ping()
    proxy.heal()
    graph.ping()
    graph.close()


def slowly(rows: Iterator[list[object]], seconds: float) -> list[list[object]]:
    """What building pages from them is on a busy processor."""
    taken: list[list[object]] = []
    for row in rows:
        time.sleep(seconds)
        taken.append(row)
    return taken


def test_what_we_do_with_the_rows_is_not_counted_as_the_server_s_silence(
    graph: Neo4JDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neo4j_session, "ANSWER_MARGIN_SECONDS", 0.1)
    marks: list[int] = []
    rows = graph._reader.read(
        "UNWIND [1, 2, 3] AS x RETURN x",
        lambda rows: slowly(rows, 0.4),
        seconds=0.5,
        came_further=lambda: marks.append(1),
    )
    assert rows == [[1], [2], [3]]
    assert marks


def test_a_server_that_answers_for_longer_than_its_time_is_told_from_one_that_is_silent(graph: Neo4JDatabase) -> None:
    def consume(rows: Iterator[list[object]]) -> None:
        slowly(islice(rows, 20), 0.1)
        for _ in rows:
            pass

    patience, began = Patience(60.0), time.monotonic()
    with pytest.raises(QueryTimeoutError):
        graph._reader.read("UNWIND range(1, 1000000000) AS x RETURN x", consume, seconds=1, patience=patience)
    waited = 60.0 - patience.left
    assert time.monotonic() - began - waited > 1 / 2, "so that it is read again with more time"


def test_a_server_that_falls_silent_in_the_middle_of_an_answer_is_an_outage(
    stack: Stack, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neo4j_session, "ANSWER_MARGIN_SECONDS", 0.2)
    graph = database_at(stack, f"bolt://127.0.0.1:{proxy.port}")
    graph.ping()
    seen: list[object] = []

    def consume(rows: Iterator[list[object]]) -> None:
        for row in rows:
            if not seen:
                proxy.black_hole()
            seen.append(row)

    with pytest.raises(OutageError, match="no answer within"):
        graph._reader.read("UNWIND range(1, 100000) AS x RETURN range(1, 100)", consume, seconds=0.5)
    assert seen
    proxy.heal()
    graph.close()


def slow_down(monkeypatch: pytest.MonkeyPatch, graph: Neo4JDatabase, slow: str, seconds: float) -> None:
    """Reading one text makes the real server look at a billion numbers, for which it has so many seconds."""
    waste = f"UNWIND range(1, CASE id WHEN '{slow}' THEN 1000000000 ELSE 1 END) AS x WITH id, known, max(x) AS most"
    monkeypatch.setattr(
        queries, "READ_PAGES", READ_PAGES.replace("OPTIONAL MATCH (m:", f"{waste}\nOPTIONAL MATCH (m:", 1)
    )
    graph.ping()  # the server plans the query, which may take it longer than that
    monkeypatch.setattr(page_reading, "QUERY_TIMEOUT_SECONDS", seconds)


def test_eight_lanes_that_need_one_slow_page_wait_for_it_once(
    stack: Stack, load_graph: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(many_texts(3))
    graph = database_at(stack)
    slow_down(monkeypatch, graph, "text-1", 5.0)
    reads: list[list[str]] = []

    class Counting(Reader):
        """Notes which pages each query asks for."""

        def read(self, query: LiteralString, *given: Any, **named: Any) -> Any:
            reads.append([page["id"] for page in named.get("wanted", ())])
            return super().read(query, *given, **named)

    graph._reader = Counting(graph._driver, None)
    pages = PageCache.connect(
        graph, memory_bytes=10**8, url=stack.env()["DRAGONFLY_URL"], ttl_seconds=60, secret="x", clock_id=""
    )
    now = next(_moments)
    with ThreadPoolExecutor(9) as pool:
        lanes = [pool.submit(walk_together, [start_at("text-1", made_at=now)], pages) for _ in range(8)]
        neighbour = pool.submit(walk_together, [start_at("text-2", made_at=now)], pages)
        assert [type(lane.exception()) for lane in lanes] == [QueryTimeoutError] * 8
        assert [*map(decoded, neighbour.result())] == [[]]
    assert reads.count(["text-1"]) == 1
    graph.close()


def test_a_page_that_takes_too_long_is_told_apart_and_the_others_come(
    stack: Stack, load_graph: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_graph(many_texts(40))
    slow = "text-17"
    graph, marks = database_at(stack), list[int]()
    slow_down(monkeypatch, graph, slow, 3.0)
    pages = PageCache.connect(
        graph,
        memory_bytes=10**8,
        url=None,
        ttl_seconds=60,
        secret="x",
        clock_id="",
    )
    names = [f"text-{at}" for at in range(40)]
    with pytest.raises(QueryTimeoutError, match=f"'{slow}' takes too long") as caught:
        pages.get(dict.fromkeys(names, 1), Reading(2, came_further=lambda: marks.append(1)))
    assert caught.value.pages == {slow}
    assert marks
    others = dict.fromkeys((name for name in names if name != slow), 1)
    monkeypatch.setattr(queries, "READ_PAGES", "nothing is read")
    assert set(pages.get(others, Reading(2))) == set(others), "what had come was kept"
    with pytest.raises(QueryTimeoutError, match="just now"):
        pages.get({slow: 1}, Reading(2))
    graph.close()


def test_a_query_that_takes_too_long_is_transient(graph: Neo4JDatabase) -> None:
    with pytest.raises(QueryTimeoutError) as caught:
        graph.read_rows("UNWIND range(1, 1000000000) AS x RETURN sum(x)", seconds=0.1)
    assert isinstance(caught.value, TransientError)
    assert not isinstance(caught.value, OutageError)


@pytest.mark.parametrize("query", ["RETRN 1", "RETURN toInteger([1])", "RETURN $missing"])
def test_a_query_that_cannot_run_is_a_refusal(query: LiteralString, graph: Neo4JDatabase) -> None:
    with pytest.raises(RefusedError, match="Neo4j refuses us"):
        graph.read_rows(query, seconds=5)


def test_a_query_that_is_refused_in_the_middle_of_a_run_is_an_outage_until_a_probe_runs_it(
    stack: Stack, load_graph: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a right or a procedure is gone: every segment that meets it says the same, and it is not its fault."""
    load_graph(SMALL)
    graph = database_at(stack)
    graph.ping()
    sound = queries.READ_PAGES
    for broken in ("CALL nothing.of.ours()", f"RETRN {sound}", f"{sound} LIMIT toInteger([1])"):
        monkeypatch.setattr(queries, "READ_PAGES", broken)
        for act in (lambda: walk_together([start_at("root-bo")], graph), graph.ping):
            with pytest.raises(OutageError):
                act()
    monkeypatch.setattr(queries, "READ_PAGES", sound)
    graph.ping()
    assert decoded(walk_together([start_at("root-bo")], graph)[0])
    graph.close()


def test_a_graph_that_shows_no_text_any_more_is_an_outage(stack: Stack, driver: neo4j.Driver, load_graph: Load) -> None:
    """Neo4j hides what there is no right to see: then every text would not exist, and its segments fail for good."""
    load_graph(SMALL)
    graph = database_at(stack)
    (unknown, _) = walk_together([start_at("nowhere"), start_at("root-bo")], graph)
    assert isinstance(unknown, PermanentError)
    empty_graph(driver)
    for act in (lambda: walk_together([start_at("root-bo")], graph), graph.ping):
        with pytest.raises(OutageError, match="shows no text any more"):
            act()
    load_graph(SMALL)
    graph.ping()
    assert isinstance(walk_together([start_at("nowhere")], graph)[0], PermanentError)
    graph.close()


def test_refused_credentials_are_a_wrong_setting_at_start_and_an_outage_later(stack: Stack) -> None:
    graph = database_at(stack, password="not the password")
    with pytest.raises(ConfigurationError) as caught:
        graph.ping()
    assert "not the password" not in str(caught.value)
    with pytest.raises(OutageError):
        walk_together([start_at("M")], graph)
    graph.close()


def test_a_database_that_does_not_exist_is_a_wrong_setting_at_start_and_an_outage_later(stack: Stack) -> None:
    environment = stack.env()
    driver = open_driver(environment["NEO4J_URI"], environment["NEO4J_USER"], environment["NEO4J_PASSWORD"])
    with driver:
        reader = Reader(driver, "nowhere")
        with pytest.raises(ConfigurationError, match="NEO4J_DATABASE"):
            reader.verify()
        with pytest.raises(OutageError):
            reader.read("RETURN 1", list)


@pytest.mark.parametrize("scheme", ["bolt+ssc", "neo4j+s"])
def test_tls_to_a_server_without_it_is_an_outage(scheme: str, stack: Stack) -> None:
    graph = database_at(stack, stack.env()["NEO4J_URI"].replace("bolt", scheme, 1))
    with pytest.raises(OutageError):
        graph.ping()
    graph.close()


def test_without_arguments_it_reads_the_settings_connects_and_shares_one_driver(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    first, second = Neo4JDatabase(), Neo4JDatabase()
    assert first._driver is second._driver
    for _ in range(2):
        first.close()
    second.ping()
    with pytest.raises(OutageError, match="was closed"):
        first.ping()
    second.close()
    third = Neo4JDatabase()
    third.ping()
    assert third._driver is not first._driver
    third.close()


def test_a_ping_that_fails_at_the_start_of_one_leaves_the_others_their_driver(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    first = Neo4JDatabase()
    with monkeypatch.context() as changed:
        changed.setattr(queries, "READ_PAGES", "RETRN 1")
        with pytest.raises(ConfigurationError, match="or later is needed"):
            Neo4JDatabase()
    with monkeypatch.context() as changed:
        changed.setenv("NEO4J_PASSWORD", "wrong")
        with pytest.raises(ConfigurationError, match="refuses us"):
            Neo4JDatabase()
    first.ping()
    first.close()


def test_without_arguments_it_fails_loudly(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="NEO4J_URI"):
        Neo4JDatabase()
    monkeypatch.setenv("NEO4J_URI", stack.env()["NEO4J_URI"])
    monkeypatch.setenv("NEO4J_PASSWORD", "wrong")
    with pytest.raises(ConfigurationError, match="refuses us"):
        Neo4JDatabase()
    monkeypatch.setenv("NEO4J_URI", "bolt://127.0.0.1:1")
    with pytest.raises(OutageError):
        Neo4JDatabase()


def test_the_published_command_works(stack: Stack) -> None:
    command = "from app.neo4j_database import Neo4JDatabase; db = Neo4JDatabase(); print('ok')"
    environment = {name: value for name, value in stack.env().items() if name.startswith("NEO4J")}
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
