"""What is a lost connection, and what is not: by PostgreSQL's code, by psycopg2's flag, by libpq's words."""

from typing import Any

import psycopg2
import pytest

from app.db.engine import make_engine
from app.db.failures import is_cut, translate
from app.errors import OutageError, RefusedError

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
