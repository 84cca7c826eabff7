"""What went wrong with PostgreSQL, in our words.

Invariant: the kind of a failure is told by its SQLSTATE, and by libpq's words where it has none; what is said of it
shows neither the statement nor its parameters, which hold results.
"""

import re
from typing import Final

import psycopg2

from app.errors import (
    DataError,
    OutageError,
    ProcessorError,
    RefusedError,
    SchemaError,
    StatementTimeoutError,
    TransientError,
)

SERVICE: Final = "PostgreSQL"

_REFUSAL: Final = re.compile(
    r"authentication failed|no pg_hba.conf entry|(role|database) \S+ does not exist|no password supplied"
    r"|permission denied for database"
)
"""libpq gives no SQLSTATE for a connection that was refused, only words."""
_CUT_WORDS: Final = re.compile(
    r"terminating connection"
    r"|losed the connection"  # with a large C, too
    r"|connection not open"
    r"|could not (receive data from|send data to) server"
    r"|(connection|cursor) already closed"
    r"|connection has been closed unexpectedly"
    r"|SSL error: decryption failed or bad record mac"
    r"|SSL SYSCALL error: (Bad file descriptor|EOF detected|Operation timed out|Bad address|Success)"
)
"""Nor for one that is lost: libpq's words (fe-misc.c, fe-secure.c), those of OpenSSL, and psycopg2's own."""
_CUT_OFF: Final = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})
_OTHER_TABLES: Final = frozenset({"42P01", "42703", "42704", "42804", "42846", "42883", "42P10"})
"""A table, column, constraint or function that a statement of ours names is not there, or is of another type."""
_TOO_LONG: Final = frozenset({"55P03", "57014"})


def translate(error: psycopg2.Error) -> ProcessorError:
    """`error` as one of ours."""
    code, reason = error.pgcode, _first_line(error)
    if code is None and _REFUSAL.search(reason):
        return RefusedError(SERVICE, reason)
    if code is None or code[:2] in {"08", "28", "3D"} or code in _CUT_OFF:
        return OutageError(SERVICE, reason)
    if code in _OTHER_TABLES:
        return SchemaError(
            SERVICE, f"the tables are not as expected ({reason}); run: alembic upgrade head", answers=True
        )
    if code[:2] in {"42", "53", "58"} or code == "25006":
        return OutageError(SERVICE, f"{reason} ({code})", answers=True)
    if code[:2] in {"22", "23", "54"}:
        return DataError(f"PostgreSQL refuses a value ({code}): {reason}")
    if code in _TOO_LONG:
        return StatementTimeoutError(f"PostgreSQL: {reason} ({code})")
    return TransientError(f"PostgreSQL: {reason} ({code})")


def is_cut(error: BaseException) -> bool:
    """Whether the connection was lost by this, and others of its time with it, as a rule."""
    if not isinstance(error, psycopg2.Error):
        return False
    if error.pgcode == "57P01" or (error.cursor is not None and error.cursor.connection.closed):
        return True
    said = _first_line(error)
    found = _CUT_WORDS.search(said)
    return found is not None and '"' not in said[: found.start()]  # after it come names and data


def _first_line(error: psycopg2.Error) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
