"""What kind of failure each of Neo4j's errors is, and how a read repeats or is made smaller. No server needed."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from neo4j import exceptions as vendor

from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.neo4j_database import MAX_PAGES_A_QUERY, Neo4JDatabase
from app.neo4j_session import MAX_REASON_CHARACTERS, QueryTimeoutError, Reader, translate, within
from app.pages import Page
from tests.graph_fixtures import end_row, pair_of


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
        (server_error("Neo.TransientError.General.MemoryPoolOutOfMemoryError"), TransientError),
        (server_error("Neo.DatabaseError.General.UnknownError"), TransientError),
        (server_error("Neo.ClientError.Statement.SyntaxError"), PermanentError),
        (server_error("Neo.ClientError.Statement.TypeError"), PermanentError),
        (server_error("Neo.ClientError.Security.Forbidden"), PermanentError),
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

    def _run[T](self, query: str, consume: Callable[[Iterator[list[Any]]], T], seconds: float, parameters: object) -> T:
        def run() -> T:
            entry = self.script.pop(0)
            if isinstance(entry, Exception):
                raise entry
            return consume(iter([entry]))

        return within(5, lambda: self._repeated(run))


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


def test_that_our_queries_run_is_asked_once() -> None:
    reader = ScriptedReader([1], [2], [1], [1])
    database = database_with(reader)
    for _ in range(3):
        database.ping()
    assert reader.script == []


def test_what_never_answers_is_an_outage_and_holds_nobody() -> None:
    never = threading.Event()
    with pytest.raises(OutageError, match=r"no answer within 0\.01 s"):
        within(0.01, never.wait)
    never.set()


def test_an_error_of_the_work_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise TimeoutError("of the socket")

    with pytest.raises(TimeoutError, match="of the socket"):
        within(5, fail)


class SlowReader(Reader):
    """Reads no more than `manageable` pages in time."""

    def __init__(self, manageable: int) -> None:
        self.manageable = manageable
        self.asked: list[int] = []
        self.known: dict[str, list[list[str]]] = {}

    def read[T](
        self, query: str, consume: Callable[[Iterator[list[Any]]], T], *, seconds: float = 1, **parameters: Any
    ) -> T:
        ids: Sequence[str] = [page["id"] for page in parameters["wanted"]]
        self.asked.append(len(ids))
        if len(ids) > self.manageable:
            raise QueryTimeoutError("too slow")
        self.known |= {page["id"]: page["known"] for page in parameters["wanted"]}
        return consume(end_row(name) for name in ids)


def database_with(reader: Reader) -> Neo4JDatabase:
    database = Neo4JDatabase("bolt://host", "neo4j", "x")
    database._reader = reader
    return database


def test_a_frontier_that_takes_too_long_is_read_in_halves() -> None:
    reader = SlowReader(manageable=3)
    names = [f"m{at}" for at in range(10)]
    assert list(database_with(reader).load_pages(names, 1)) == names
    assert reader.asked == [10, 5, 2, 3, 5, 2, 3]


def test_one_page_that_takes_too_long_is_a_failure() -> None:
    with pytest.raises(QueryTimeoutError):
        database_with(SlowReader(manageable=0)).load_pages(["a", "b"], 1)


def test_a_frontier_of_hundreds_is_read_in_chunks() -> None:
    reader = SlowReader(manageable=10**6)
    names = [f"m{at}" for at in range(2 * MAX_PAGES_A_QUERY + 1)]
    assert list(database_with(reader).load_pages(names, 1)) == names
    assert reader.asked == [MAX_PAGES_A_QUERY, MAX_PAGES_A_QUERY, 1]


def test_what_is_at_hand_is_not_asked_for_in_halves_nor_what_the_chunk_before_gave() -> None:
    reader = SlowReader(manageable=7)
    names = [f"m{at}" for at in range(MAX_PAGES_A_QUERY)]
    first, last = pair_of(names[0], [(0, 5, 7, 9)]), pair_of(names[-1], [(0, 5, 7, 9)])
    pages = database_with(reader).load_pages([*names, "root"], 1, [Page("root", 1, True, (first, last))])
    assert {name: known for name, known in reader.known.items() if known} == {
        names[0]: [["a2", "a1", "root"]],
        names[-1]: [["a2", "a1", "root"]],
        "root": [["a1", "a2", names[0]], ["a1", "a2", names[-1]]],
    }
    assert pages[names[0]].pairs == pages[names[-1]].pairs == (first.mirrored("root"),)
    assert pages["root"].pairs == (first, last)


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
