"""One session of PostgreSQL, as every statement of ours finds it.

Invariant: a transaction ends with the string that it was sent as (autocommit), every wait for the server ends, and
whether the server keeps what is prepared is known from the beginning.
"""

from typing import Any, Final

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, connection

from app.db.failures import translate

CONNECT_TIMEOUT_SECONDS: Final = 5
TCP_USER_TIMEOUT_MS: Final = 15_000
BOUNDS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
}
"""What libpq is told about a server that is gone."""


class Connection(connection):
    """A connection of psycopg2 with what is known of its session."""

    keeps_plans = False
    """What is prepared here is found here again: no pooler is in between."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared: set[str] = set()
        """Names of what has been prepared here."""

    @property
    def is_idle(self) -> bool:
        """It is open, and there is no statement or transaction on it."""
        return self.get_transaction_status() == TRANSACTION_STATUS_IDLE


def connect(arguments: dict[str, Any]) -> Connection:
    """A new session by what libpq is told. Raises as `app.db.failures.translate`."""
    try:
        made: Connection = psycopg2.connect(connection_factory=Connection, **{**arguments, **BOUNDS})
        try:
            made.autocommit = True
            made.keeps_plans = _is_direct(made)
        except BaseException:
            made.close()
            raise
    except psycopg2.Error as error:
        raise translate(error) from error
    return made


def _is_direct(made: Connection) -> bool:
    """A pooler invents the number of the server process that it tells a client, as every session shares the servers."""
    with made.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (number,) = cursor.fetchone() or (None,)
        return bool(number == made.info.backend_pid)
