"""What is a lost connection, and what is not: by PostgreSQL's code, by psycopg2's flag, by libpq's words."""

from typing import Any

import psycopg2
import pytest

from app.db.engine import make_engine
from app.db.failures import is_cut, translate
from app.db.postgres import Database, run
from app.errors import OutageError, RefusedError, StatementTimeoutError

SQLALCHEMY: Any = make_engine("postgresql://").dialect
LOST = [
    "terminating connection due to administrator command\nSSL connection has been closed unexpectedly\n",
    "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n",
    "SSL connection has been closed unexpectedly",
    "could not receive data from server: Connection timed out",
    "could not send data to server: Broken pipe",
    "connection not open",
    "connection already closed",
    "cursor already closed",
    "Closed the connection unexpectedly",
    "SSL error: decryption failed or bad record mac",
    "SSL SYSCALL error: EOF detected",
    "SSL SYSCALL error: Operation timed out",
]


@pytest.mark.parametrize("said", LOST)
def test_a_lost_connection_is_told_by_what_is_said_of_it(said: str) -> None:
    error = psycopg2.OperationalError(said)
    assert is_cut(error)
    assert SQLALCHEMY.is_disconnect(error, None, None)
    assert type(translate(error)) is OutageError


@pytest.mark.parametrize("said", SQLALCHEMY._is_disconnect_messages)
def test_all_words_are_known_that_sqlalchemy_knows(said: str) -> None:
    assert is_cut(psycopg2.OperationalError(f"{said}: and more"))


@pytest.mark.parametrize(
    "said",
    [
        "",
        "deadlock detected",
        'relation "server closed the connection" does not exist',
        'connection to server at "db", port 5432 failed: server closed the connection unexpectedly',
        "syntax error\nterminating connection",
    ],
)
def test_what_a_name_or_a_later_line_says_is_no_cut(said: str) -> None:
    assert not is_cut(psycopg2.OperationalError(said))
    assert not SQLALCHEMY.is_disconnect(psycopg2.OperationalError(said), None, None)


def test_only_psycopg2_s_errors_tell_of_a_cut() -> None:
    assert not is_cut(OSError("server closed the connection unexpectedly"))


class LockNotAvailable(psycopg2.OperationalError):
    """As the driver raises it on `cursor`, which it lets nobody set."""

    pgcode = "55P03"
    cursor: Any = None

    def __init__(self, cursor: "Session") -> None:
        super().__init__("canceling statement due to lock timeout")
        self.cursor = cursor


class Session:
    """A connection and its cursor in one, on which every statement waits for a lock in vain."""

    is_idle = True
    keeps_plans = False
    closed = 0

    def __init__(self) -> None:
        self.connection = self
        self.sent: list[str] = []

    def cursor(self) -> "Session":
        return self

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None: ...

    def execute(self, sql: str, _: object) -> None:
        self.sent.append(sql)
        raise LockNotAvailable(self)

    def close(self) -> None:
        self.closed = 1


def test_a_connection_that_we_closed_ourselves_is_not_taken_for_one_that_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a wait for a lock that ended beyond what the pool keeps would be waited for once more."""
    session = Session()
    monkeypatch.setattr("app.db.postgres.connect", lambda _: session)
    with pytest.raises(StatementTimeoutError):
        run(Database("postgresql://", pool_size=0), "SELECT 1")
    assert session.closed
    assert len(session.sent) == 1


@pytest.mark.parametrize(
    "said",
    [
        'FATAL:  password authentication failed for user "me"',
        'no pg_hba.conf entry for host "10.0.0.1", user "me"',
        'FATAL:  database "segments" does not exist',
        'FATAL:  role "me" does not exist',
        "fe_sendauth: no password supplied",
        'FATAL:  permission denied for database "segments"',
    ],
)
def test_a_connection_that_is_refused_is_told_by_what_is_said_of_it(said: str) -> None:
    assert type(translate(psycopg2.OperationalError(f"connection to server failed: {said}"))) is RefusedError
