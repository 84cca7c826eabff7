"""The engine: one pool a process, psycopg2 chosen explicitly, every wait bounded, errors in our own words.

Invariant: each statement is a transaction of its own (autocommit); where several must be one, they are sent as one
string, which PostgreSQL runs as one transaction in one round trip. Nothing that is set outlives its transaction: behind
a pooler the next one belongs to somebody else. Nothing connects before its first use.
"""

import logging
import re
import threading
from collections import namedtuple
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache
from typing import Any, Final, cast

import psycopg2
from sqlalchemy import Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.meter import NO_METER, Meter
from app.errors import (
    DataError,
    OutageError,
    ProcessorError,
    RefusedError,
    SchemaError,
    StatementTimeoutError,
    TransientError,
)

log = logging.getLogger(__name__)

SERVICE: Final = "PostgreSQL"
CONNECT_TIMEOUT_SECONDS: Final = 5
POOL_TIMEOUT_SECONDS: Final = 10
STATEMENT_TIMEOUT_MS: Final = 30_000
LOCK_TIMEOUT_MS: Final = 10_000
TCP_USER_TIMEOUT_MS: Final = 15_000
MAX_REPEATS: Final = 20
"""Repeats of a transaction that lost a deadlock or met a cut connection; none of them charges anything."""

KEEPS_PLANS: Final = "keeps_plans"
"""Of a connection's `info` and an engine's options: false where prepared statements are not found again."""

METER: Final = "meter"
"""Of an engine's options: who is told of each call."""

_REPEATABLE: Final = frozenset({"40001", "40P01"})
_NO_SUCH_PLAN: Final = frozenset({"26000", "42P05"})
"""No such prepared statement; one of that name exists already: the server connection is not the one we prepared on."""
_REFUSAL: Final = re.compile(
    r"authentication failed|no pg_hba.conf entry|(role|database) \S+ does not exist|no password supplied"
    r"|permission denied for database"
)
"""libpq gives no SQLSTATE for a connection that was refused, only words."""
_CUT_OFF: Final = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})
_OTHER_TABLES: Final = frozenset({"42P01", "42703", "42704", "42804", "42846", "42883", "42P10"})
"""A table, column, constraint or function that a statement of ours names is not there, or is of another type."""
_TOO_LONG: Final = frozenset({"55P03", "57014"})

_learning = threading.Lock()


def make_engine(
    url: str,
    *,
    pool_size: int = 4,
    application_name: str = "segment-relationship-processor",
    meter: Meter = NO_METER,
) -> Engine:
    """An engine for `url` (``postgresql://``, ``postgres://`` or ``postgresql+psycopg2://``) with bounded waits."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg2")
    engine = create_engine(
        parsed,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=4,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,  # the one used last goes first: PostgreSQL has its plans
        pool_recycle=1_800,
        pool_reset_on_return=None,  # nothing is left open: each string is a transaction of its own
        execution_options={METER: meter},
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
        },
    )
    event.listen(engine, "connect", _look_for_a_pooler)
    return engine


def _look_for_a_pooler(connection: Any, record: Any) -> None:
    """A pooler invents the number of the server process that it tells a client, as every session shares the servers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        record.info[KEEPS_PLANS] = cursor.fetchone()[0] == connection.info.backend_pid


def __getattr__(name: str) -> Any:
    """``app.db.postgres.engine``: made from POSTGRES_URL when it is first asked for."""
    if name != "engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.config import get

    globals()["engine"] = make_engine(get("POSTGRES_URL"))
    return globals()["engine"]


def run(
    engine: Engine,
    sql: str | Callable[[PoolProxiedConnection], str],
    parameters: Mapping[str, Any] | None = None,
    *,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
) -> list[Any]:
    """Run `sql` (one or several statements) as one transaction and return the last statement's rows.

    A function is asked for the text that suits the connection. A wait for one lock ends after `lock_timeout_ms`.

    A lost deadlock, a serialisation failure and a connection that was cut are repeated here: every statement of
    ours is conditional on the state that it finds, so that a repeat of one that had committed changes nothing.
    Raises `OutageError`, `TransientError` or `DataError`.
    """
    meter: Meter = engine.get_execution_options().get(METER, NO_METER)
    with meter.call(SERVICE):
        return _run(engine, sql, parameters, lock_timeout_ms)


def _run(
    engine: Engine,
    sql: str | Callable[[PoolProxiedConnection], str],
    parameters: Mapping[str, Any] | None,
    lock_timeout_ms: int,
) -> list[Any]:
    cut = 0
    for repeat in range(MAX_REPEATS):
        try:
            return _try_once(engine, sql, parameters, lock_timeout_ms)
        except (SQLAlchemyError, psycopg2.Error) as error:
            code = sqlstate(error)
            lost = isinstance(error, psycopg2.Error) and _is_cut(engine, error)
            cut += lost
            if code in _NO_SUCH_PLAN:
                _stop_keeping_plans(engine)
            repeatable = code in _REPEATABLE or code in _NO_SUCH_PLAN
            if (repeatable and repeat < MAX_REPEATS - 1) or (lost and cut == 1):
                log.debug("Repeating a transaction after %s", code or "a cut connection")
                continue
            raise translate(error) from error
    raise AssertionError("unreachable: the last repeat returns or raises")


def _try_once(
    engine: Engine,
    sql: str | Callable[[PoolProxiedConnection], str],
    parameters: Mapping[str, Any] | None,
    lock_timeout_ms: int,
) -> list[Any]:
    """On a connection of the pool, by the driver's own cursor: SQLAlchemy's costs as much again as the statement."""
    connection = engine.raw_connection()
    try:
        with closing(connection.cursor()) as cursor:
            text = bounds(lock_timeout_ms) + (sql if isinstance(sql, str) else sql(connection))
            cursor.execute(text, parameters or {})
            if not cursor.description:
                return []
            row_type = _row_type(tuple(column[0] for column in cursor.description))
            return [row_type._make(row) for row in cursor.fetchall()]
    except psycopg2.Error as error:
        if _is_cut(engine, error):
            connection.invalidate(error)
            engine.dispose()  # the others were cut with it, as a rule
        raise
    finally:
        connection.close()


@lru_cache
def _row_type(names: tuple[str, ...]) -> Any:
    """Columns without a name, or with that of another, have a place only."""
    return namedtuple("Row", names, rename=True)


def _is_cut(engine: Engine, error: psycopg2.Error) -> bool:
    return error.pgcode == "57P01" or engine.dialect.is_disconnect(cast("Any", error), None, None)


def bounds(lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> str:
    """What each string begins with, so that every wait ends; it is forgotten with the transaction.

    Not through libpq's `options`, which a pooler in front of PostgreSQL refuses.
    """
    return f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; SET LOCAL lock_timeout = {lock_timeout_ms};\n"


def keeps_plans(engine: Engine, connection: PoolProxiedConnection) -> bool:
    """Whether what is prepared on `connection` is found there again."""
    return bool(connection.info.get(KEEPS_PLANS) and engine.get_execution_options().get(KEEPS_PLANS, True))


def _stop_keeping_plans(engine: Engine) -> None:
    """For all threads at once: those that are being refused at this moment repeat without, too."""
    with _learning:
        if not engine.get_execution_options().get(KEEPS_PLANS, True):
            return
        engine.update_execution_options(**{KEEPS_PLANS: False})
    log.info("This PostgreSQL keeps no prepared statements, a pooler is in between: they are sent as text")


def translate(error: SQLAlchemyError | psycopg2.Error) -> ProcessorError:
    """`error` as one of ours, by SQLSTATE; without the statement and its parameters, which hold results."""
    code = sqlstate(error)
    reason = _first_line(error)
    if isinstance(error, PoolTimeoutError):
        return TransientError("no PostgreSQL connection was free in time")
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


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's code for what went wrong, if it came from there."""
    original = _original(error)
    return original.pgcode if isinstance(original, psycopg2.Error) else None


def _original(error: BaseException | None) -> BaseException | None:
    """The driver's error, which SQLAlchemy wraps while it connects."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _first_line(error: SQLAlchemyError | psycopg2.Error) -> str:
    original = _original(error)
    text = str(original).strip()
    return text.splitlines()[0][:300] if text else type(original).__name__
