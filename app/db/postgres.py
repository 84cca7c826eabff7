"""Statements of ours on a database: one pool a process, every wait bounded, errors in our own words.

Invariant: each statement is a transaction of its own (autocommit); where several must be one, they are sent as one
string, which PostgreSQL runs as one transaction in one round trip. Nothing that is set outlives its transaction: behind
a pooler the next one belongs to somebody else. Nothing connects before its first use.
"""

import logging
from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Final

import psycopg2

from app.core.meter import NO_METER, Meter
from app.db.address import libpq_arguments
from app.db.connection import Connection, connect
from app.db.failures import SERVICE, is_cut, translate
from app.db.pool import Pool

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT_MS: Final = 30_000
LOCK_TIMEOUT_MS: Final = 10_000
MAX_REPEATS: Final = 20
"""Repeats of a transaction that lost a deadlock or met a cut connection; none of them charges anything."""
OVERFLOW: Final = 4
"""Connections beyond a pool's size, closed when they come back."""

_REPEATABLE: Final = frozenset({"40001", "40P01"})
_NO_SUCH_PLAN: Final = frozenset({"26000", "42P05"})
"""No such prepared statement; one of that name exists already: the server connection is not the one we prepared on."""


class Database:
    """A PostgreSQL database and what this process knows of it. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 4,
        application_name: str = "segment-relationship-processor",
        meter: Meter = NO_METER,
    ) -> None:
        """`url` is as `app.db.address` reads it; `meter` is told of each call. Raises `ConfigurationError`."""
        arguments = {**libpq_arguments(url), "application_name": application_name}
        self.pool: Final = Pool(partial(connect, arguments), is_cut, most=pool_size + OVERFLOW, keep=pool_size)
        self.meter: Final = meter
        self._keeps_plans = True
        self._learning = Lock()

    def keeps_plans(self, connection: Connection) -> bool:
        """Whether what is prepared on `connection` is found there again."""
        return self._keeps_plans and connection.keeps_plans

    def stop_keeping_plans(self) -> None:
        """For all threads at once: those that are being refused at this moment repeat without, too."""
        with self._learning:
            is_news, self._keeps_plans = self._keeps_plans, False
        if is_news:
            log.info("This PostgreSQL keeps no prepared statements, a pooler is in between: they are sent as text")

    def dispose(self) -> None:
        """Close the connections; whoever asks again gets new ones."""
        self.pool.dispose()


def __getattr__(name: str) -> Any:
    """``app.db.postgres.engine``, SQLAlchemy's: made from POSTGRES_URL when it is first asked for."""
    if name != "engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.config import get
    from app.db.engine import make_engine

    globals()["engine"] = make_engine(get("POSTGRES_URL"))
    return globals()["engine"]


def run(
    database: Database,
    sql: str | Callable[[Connection], str],
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
    with database.meter.call(SERVICE):
        return _run(database, sql, parameters, lock_timeout_ms)


def _run(
    database: Database,
    sql: str | Callable[[Connection], str],
    parameters: Mapping[str, Any] | None,
    lock_timeout_ms: int,
) -> list[Any]:
    cut = 0
    for repeat in range(MAX_REPEATS):
        lost = False
        try:
            with database.pool.lend() as connection:
                try:
                    return _try_once(connection, sql, parameters, lock_timeout_ms)
                except psycopg2.Error as error:
                    lost = is_cut(error)  # now: given back it may be closed by us
                    raise
        except psycopg2.Error as error:
            code = error.pgcode
            cut += lost
            if code in _NO_SUCH_PLAN:
                database.stop_keeping_plans()
            repeatable = code in _REPEATABLE or code in _NO_SUCH_PLAN
            if (repeatable and repeat < MAX_REPEATS - 1) or (lost and cut == 1):
                log.debug("Repeating a transaction after %s", code or "a cut connection")
                continue
            raise translate(error) from error
    raise AssertionError("unreachable: the last repeat returns or raises")


def _try_once(
    connection: Connection,
    sql: str | Callable[[Connection], str],
    parameters: Mapping[str, Any] | None,
    lock_timeout_ms: int,
) -> list[Any]:
    with connection.cursor() as cursor:
        text = bounds(lock_timeout_ms) + (sql if isinstance(sql, str) else sql(connection))
        cursor.execute(text, parameters or {})
        if not cursor.description:
            return []
        row_type = _row_type(tuple(column[0] for column in cursor.description))
        return [row_type._make(row) for row in cursor.fetchall()]


@lru_cache
def _row_type(names: tuple[str, ...]) -> Any:
    """Columns without a name, or with that of another, have a place only."""
    return namedtuple("Row", names, rename=True)


def bounds(lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> str:
    """What each string begins with, so that every wait ends; it is forgotten with the transaction.

    Not through libpq's `options`, which a pooler in front of PostgreSQL refuses.
    """
    return f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; SET LOCAL lock_timeout = {lock_timeout_ms};\n"
