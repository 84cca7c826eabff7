"""What kind of failure each of Neo4j's errors is, and how a read repeats or is made smaller. No server needed."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from neo4j import exceptions as vendor

from app.core.meter import NO_METER
from app.core.segments import Start
from app.errors import (
    ConfigurationError,
    OutageError,
    ProcessorError,
    QueryTimeoutError,
    RefusedError,
    TransientError,
)
from app.graph import page_reading
from app.graph.page_reading import MAX_PAGES_A_QUERY, PageReader
from app.graph.session import MAX_REASON_CHARACTERS, QUERY_TIMEOUT_SECONDS, Reader, Watch, translate, within
from app.neo4j_database import Neo4JDatabase
from app.pages.build import WarnOnce
from app.pages.page import Page
from app.pages.reading import MAX_WAIT_SECONDS, Patience, Reading
from app.pages.walk import walk_together
from tests.support.graphs import end_row, pair_of, pair_row


def server_error(code: str, message: str = "words") -> vendor.Neo4jError:
    return vendor.Neo4jError._hydrate_neo4j(code=code, message=message)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (vendor.ServiceUnavailable("refused"), OutageError),
        (vendor.SessionExpired("gone"), OutageError),
        (vendor.ConnectionAcquisitionTimeoutError("full"), OutageError),
        (OSError("network is unreachable"), OutageError),
        (server_error("Neo.ClientError.Security.Unauthorized"), OutageError),
        (server_error("Neo.ClientError.Security.AuthenticationRateLimit"), OutageError),
        (server_error("Neo.ClientError.Security.TokenExpired"), OutageError),
        (server_error("Neo.ClientError.Database.DatabaseNotFound"), OutageError),
        (server_error("Neo.ClientError.Cluster.NotALeader"), OutageError),
        (server_error("Neo.TransientError.General.DatabaseUnavailable"), OutageError),
        (server_error("Neo.ClientError.Transaction.TransactionTimedOut"), QueryTimeoutError),
        (server_error("Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration"), QueryTimeoutError),
        (server_error("Neo.TransientError.Transaction.Terminated"), QueryTimeoutError),
        (server_error("Neo.TransientError.Transaction.DeadlockDetected"), TransientError),
        (server_error("Neo.TransientError.General.MemoryPoolOutOfMemoryError"), QueryTimeoutError),
        (server_error("Neo.ClientError.General.TransactionOutOfMemoryError"), QueryTimeoutError),
        (server_error("Neo.DatabaseError.General.UnknownError"), TransientError),
        (server_error("Neo.ClientError.Statement.SyntaxError"), RefusedError),
        (server_error("Neo.ClientError.Statement.TypeError"), RefusedError),
        (server_error("Neo.ClientError.Procedure.ProcedureNotFound"), RefusedError),
        (server_error("Neo.ClientError.Schema.ConstraintNotFound"), RefusedError),
        (server_error("Neo.ClientError.Security.Forbidden"), RefusedError),
    ],
)
def test_every_error_has_its_kind(error: Exception, kind: type[ProcessorError]) -> None:
    assert type(translate(error)) is kind


def test_a_reason_is_one_short_line_without_the_query() -> None:
    text = str(translate(server_error("Neo.ClientError.Statement.SyntaxError", 'Bad (line 1)\n"MATCH secret data"')))
    assert "secret data" not in text
    assert "SyntaxError: Bad (line 1)" in text
    long = str(translate(vendor.ServiceUnavailable("x\n" * 5_000)))
    assert "\n" not in long
    assert len(long) < MAX_REASON_CHARACTERS + 100


class ScriptedReader(Reader):
    """A reader whose every run is an entry of `script`: an error, or the row that comes."""

    def __init__(self, *script: Exception | list[Any]) -> None:
        self.script = list(script)
        self._meter = NO_METER

    def _run[T](
        self,
        query: str,
        consume: Callable[[Iterator[list[Any]]], T],
        seconds: float,
        parameters: object,
        watch: Watch,
    ) -> T:
        def run() -> T:
            entry = self.script.pop(0)
            if isinstance(entry, Exception):
                raise entry
            return consume(iter([entry]))

        return within(5, lambda: self._repeated(run), watch)


def test_a_broken_connection_is_replaced_once() -> None:
    broken = vendor.ServiceUnavailable("defunct")
    assert ScriptedReader(broken, [1]).read("", list) == [[1]]
    assert ScriptedReader(vendor.SessionExpired("defunct"), [1]).read("", list) == [[1]]
    with pytest.raises(OutageError):
        ScriptedReader(broken, broken, [1]).read("", list)


def test_nothing_else_repeats() -> None:
    with pytest.raises(TransientError):
        ScriptedReader(server_error("Neo.TransientError.Transaction.DeadlockDetected"), [1]).read("", list)


def test_a_setting_is_told_from_an_outage_at_start() -> None:
    for code in ("Neo.ClientError.Security.Unauthorized", "Neo.ClientError.Database.DatabaseNotFound"):
        with pytest.raises(ConfigurationError):
            ScriptedReader(server_error(code)).verify()
    for error in (vendor.ServiceUnavailable("x"), server_error("Neo.ClientError.Security.AuthenticationRateLimit")):
        with pytest.raises(OutageError):
            ScriptedReader(error, error).verify()


def test_a_server_that_is_too_old_for_our_queries_is_a_wrong_setting_at_start() -> None:
    old = server_error("Neo.ClientError.Statement.SyntaxError", "Invalid input '('")
    with pytest.raises(ConfigurationError, match=r"Neo4j 5\.23 or later"):
        database_with(ScriptedReader([1], old)).ping()


@pytest.mark.parametrize("code", ["Security.Forbidden", "Statement.SyntaxError", "Procedure.ProcedureNotFound"])
def test_every_probe_runs_what_a_batch_runs_and_is_refused_as_one(code: str) -> None:
    """A right that was taken away in the middle of a run is waited for, however well the server answers."""
    refused = server_error(f"Neo.ClientError.{code}")
    database = database_with(ScriptedReader([1], [2], refused, [1], refused, [1], [2]))
    database.ping()
    with pytest.raises(RefusedError, match="Neo4j refuses us"):
        walk_together([START], database)
    with pytest.raises(RefusedError):
        database.ping()
    database.ping()


def test_nothing_that_the_server_says_fails_a_segment_for_good() -> None:
    """Permanent is what the data says; a refusal says nothing of the segments that meet it."""
    for code in ("Security.Forbidden", "Statement.SyntaxError", "Statement.EntityNotFound", "Schema.IndexNotFound"):
        with pytest.raises(OutageError):
            walk_together([START], database_with(ScriptedReader(server_error(f"Neo.ClientError.{code}"))))


def test_what_never_answers_is_an_outage_and_holds_nobody() -> None:
    never = threading.Event()
    with pytest.raises(OutageError, match=r"no answer within 0\.01 s"):
        within(0.01, never.wait, Watch())
    never.set()


def test_what_we_do_with_the_rows_is_no_waiting_for_the_server() -> None:
    watch, marks = Watch(), list[int]()
    watch.came_further = lambda: marks.append(watch.steps)

    def work() -> str:
        watch.hear()
        time.sleep(0.05)
        return "built"

    assert within(0.02, work, watch) == "built"
    assert marks == [1], "told once, and by the thread that waits"
    assert watch.waited_seconds < 0.05


def test_a_server_that_falls_silent_after_some_rows_is_an_outage() -> None:
    watch, never = Watch(), threading.Event()

    def work() -> None:
        watch.hear()
        watch.ask()
        never.wait()

    with pytest.raises(OutageError, match="no answer within"):
        within(0.02, work, watch)
    never.set()


def test_what_a_read_waits_for_is_taken_from_the_patience() -> None:
    class Silent(ScriptedReader):
        """Says nothing for a while, then fails."""

        def _run[T](
            self, query: str, consume: Callable[[Iterator[list[Any]]], T], seconds: float, parameters: object,
            watch: Watch,
        ) -> T:  # fmt: skip
            watch.ask()
            time.sleep(0.02)
            raise server_error("Neo.ClientError.Transaction.TransactionTimedOut")

    patience = Patience(1.0)
    with pytest.raises(QueryTimeoutError):
        Silent().read("", list, patience=patience)
    assert patience.left <= 0.98


def test_an_error_of_the_work_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise TimeoutError("of the socket")

    with pytest.raises(TimeoutError, match="of the socket"):
        within(5, fail, Watch())


class SlowReader(Reader):
    """Reads no more than `manageable` pages in time, and none with one of the `slow` among them."""

    def __init__(self, manageable: int = 10**6, slow: Sequence[str] = (), takes_seconds: float = 0.0) -> None:
        self.manageable = manageable
        self.slow = set(slow)
        self.takes_seconds = takes_seconds
        self.asked: list[int] = []
        self.known: dict[str, list[list[str]]] = {}

    def read[T](
        self,
        query: str,
        consume: Callable[[Iterator[list[Any]]], T],
        *,
        seconds: float = 1,
        patience: Patience | None = None,
        came_further: Callable[[], None] = lambda: None,
        **parameters: Any,
    ) -> T:
        assert patience is not None
        ids: Sequence[str] = [page["id"] for page in parameters["wanted"]]
        self.asked.append(len(ids))
        if len(ids) > self.manageable or self.slow.intersection(ids):
            patience.left -= seconds
            raise QueryTimeoutError("too slow")
        patience.left -= self.takes_seconds
        came_further()
        self.known |= {page["id"]: page["known"] for page in parameters["wanted"]}
        return consume(end_row(name) for name in ids)


START = Start("m", 0, 5, fresh_since_us=1, read_at_us=2)


def pages_of(reader: Reader) -> PageReader:
    return PageReader(reader, WarnOnce())


def database_with(reader: Reader) -> Neo4JDatabase:
    database = Neo4JDatabase("bolt://host", "neo4j", "x")
    database._reader = reader
    return database


def test_a_frontier_that_takes_too_long_is_read_in_eighths() -> None:
    reader = SlowReader(manageable=3)
    names = [f"m{at}" for at in range(20)]
    assert list(pages_of(reader).load_pages(dict.fromkeys(names, 0), Reading(1))) == names
    assert reader.asked == [20, 3, 3, 3, 3, 3, 3, 2]


def test_a_size_that_took_too_long_twice_is_not_tried_a_third_time() -> None:
    reader = SlowReader(manageable=7)
    names = [f"m{at}" for at in range(2 * MAX_PAGES_A_QUERY)]
    assert list(pages_of(reader).load_pages(dict.fromkeys(names, 0), Reading(1))) == names
    assert [size for size in reader.asked if size > 1] == [64, 8, 8]


def test_one_page_that_takes_too_long_is_a_failure_and_is_named() -> None:
    with pytest.raises(QueryTimeoutError, match="manifestation 'a' takes too long") as caught:
        pages_of(SlowReader(manageable=0)).load_pages(dict.fromkeys(["a"], 0), Reading(1))
    assert caught.value.pages == {"a"}


def load_until_failure(database: PageReader, names: Sequence[str]) -> tuple[list[str], QueryTimeoutError]:
    """The pages that came, and what came instead of the rest."""
    arrived: list[str] = []
    try:
        for part in database.load_parts(dict.fromkeys(names, 0), Reading(1)):
            arrived += part
    except QueryTimeoutError as error:
        return arrived, error
    raise AssertionError("everything came")


@pytest.mark.parametrize("at", [0, 17, 63, 100])
def test_one_slow_page_costs_no_other_and_is_told_apart_within_the_patience(at: int) -> None:
    names = [f"m{number}" for number in range(150)]
    reader = SlowReader(slow=[names[at]])
    arrived, error = load_until_failure(pages_of(reader), names)
    assert arrived == [name for name in names if name != names[at]]
    assert error.pages == {names[at]}
    assert reader.asked.count(1) >= 1


def test_a_walk_does_not_wait_for_a_slow_server_without_end_and_blames_no_page_that_was_not_tried() -> None:
    names = [f"m{number}" for number in range(10 * MAX_PAGES_A_QUERY)]
    slow = SlowReader(takes_seconds=25.0)
    arrived, error = load_until_failure(pages_of(slow), names)
    assert "after 120 s of waiting for Neo4j in all 320 pages are left" in str(error)
    assert len(arrived) == 5 * MAX_PAGES_A_QUERY, "what came is given all the same"
    assert error.pages == set()
    hopeless = SlowReader(manageable=0)
    with pytest.raises(QueryTimeoutError) as caught:
        pages_of(hopeless).load_pages(dict.fromkeys(names, 0), Reading(1))
    assert len(hopeless.asked) == MAX_WAIT_SECONDS / QUERY_TIMEOUT_SECONDS
    assert caught.value.pages == {"m0", "m1"}


def test_the_patience_is_that_of_a_whole_walk_and_the_next_walk_has_its_own() -> None:
    class Levels(SlowReader):
        """A chain of texts; each page takes a while."""

        def read[T](self, query: str, consume: Callable[[Iterator[list[Any]]], T], **parameters: Any) -> T:
            ((name,),) = [[page["id"] for page in parameters["wanted"]]]
            rows = [pair_row(name, f"{name}+", f"{name}-", f"{name}x", [[0, 5, 0, 5]]), end_row(name)]
            return super().read(query, lambda _: consume(iter(rows)), **parameters)

    reader = Levels(takes_seconds=50.0)
    database = pages_of(reader)
    for walks in (1, 2):
        with pytest.raises(QueryTimeoutError, match="in all 1 pages are left"):
            walk_together([START], database)
        assert len(reader.asked) == 3 * walks


def test_a_page_that_is_slow_because_we_are_is_read_again_with_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock runs while it waits for us to take the rows."""
    now = 0.0
    given: list[float] = []

    class BusyReader(SlowReader):
        """Needs 100 seconds of its own for the rows, the server next to none."""

        def read[T](
            self, query: str, consume: Callable[[Iterator[list[Any]]], T], *, seconds: float = 1, **parameters: Any
        ) -> T:
            nonlocal now
            given.append(seconds)
            now += min(seconds, 100.0)
            if seconds < 100.0:
                raise QueryTimeoutError("too slow")
            return super().read(query, consume, seconds=seconds, **parameters)

    monkeypatch.setattr(page_reading, "time", SimpleNamespace(monotonic=lambda: now))
    assert list(pages_of(BusyReader()).load_pages(dict.fromkeys(["a"], 0), Reading(1))) == ["a"]
    assert given == [30, 60, 120]


def test_who_waits_is_told_of_every_part() -> None:
    marks: list[str] = []
    walk_together([START], pages_of(SlowReader()), lambda: marks.append(threading.current_thread().name))
    assert marks == [threading.current_thread().name]


def test_a_frontier_of_hundreds_is_read_in_chunks() -> None:
    reader = SlowReader(manageable=10**6)
    names = [f"m{at}" for at in range(2 * MAX_PAGES_A_QUERY + 1)]
    assert list(pages_of(reader).load_pages(dict.fromkeys(names, 0), Reading(1))) == names
    assert reader.asked == [MAX_PAGES_A_QUERY, MAX_PAGES_A_QUERY, 1]


def test_what_is_at_hand_is_not_asked_for_in_small_parts_nor_what_the_chunk_before_gave() -> None:
    reader = SlowReader(manageable=7)
    names = [f"m{at}" for at in range(MAX_PAGES_A_QUERY)]
    first, last = pair_of(names[0], [(0, 5, 7, 9)]), pair_of(names[-1], [(0, 5, 7, 9)])
    at_hand = [Page("root", 1, True, (first, last))]
    pages = pages_of(reader).load_pages(dict.fromkeys([*names, "root"], 0), Reading(1, at_hand))
    assert {name: known for name, known in reader.known.items() if known} == {
        names[0]: [["a2", "a1", "root"]],
        names[-1]: [["a2", "a1", "root"]],
        "root": [["a1", "a2", names[0]], ["a1", "a2", names[-1]]],
    }
    assert pages[names[0]].pairs == pages[names[-1]].pairs == (first.mirrored("root"),)
    assert pages["root"].pairs == (first, last)


def test_of_a_page_that_is_read_once_more_only_the_new_one_shows_its_pairs() -> None:
    """Jobs of one batch may ask for different times."""

    class Root(SlowReader):
        def read[T](self, query: str, consume: Callable[[Iterator[list[Any]]], T], **parameters: Any) -> T:
            is_asked_for = "root" in [page["id"] for page in parameters["wanted"]]
            rows = [pair_row("root", "a1", "a2", "last", [[0, 5, 7, 9]])] if is_asked_for else []
            return super().read(query, lambda ends: consume(iter([*rows, *ends])), **parameters)

    pair = pair_of("last", [(0, 5, 7, 9)])
    names = ["root", *[f"m{at}" for at in range(MAX_PAGES_A_QUERY - 1)], "last"]
    needs = {**dict.fromkeys(names, 1), "root": 5}
    last = pages_of(Root()).load_pages(needs, Reading(9, [Page("root", 1, True, (pair,))]))["last"]
    assert last == Page("last", 9, True, (pair.mirrored("root"),))


@pytest.mark.parametrize(
    ("uri", "database", "graph_id"),
    [
        ("bolt://host:7687", None, "host:7687/"),
        ("neo4j+s://abc.databases.neo4j.io", "texts", "abc.databases.neo4j.io/texts"),
    ],
)
def test_a_graph_is_named_by_host_and_database(uri: str, database: str | None, graph_id: str) -> None:
    assert Neo4JDatabase(uri, "neo4j", "x", database).graph_id == graph_id


@pytest.mark.parametrize("uri", ["neo4j+s://user:secret@host", "bolt://user:secret@host", "gopher://secret"])
def test_a_uri_that_cannot_be_used_is_not_told(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="NEO4J_URI") as caught:
        Neo4JDatabase(uri, "neo4j", "x")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__, "the vendor's error holds the URL"
