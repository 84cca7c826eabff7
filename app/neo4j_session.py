"""The driver: pooled connections, every wait bounded, every error in our own words.

Invariant: one read is one round trip and ends within its bound, whatever the server does: a stopped server, which
the driver would wait two minutes for, is an outage like any other. Reads repeat once, and only after a connection
broke; the driver's own retries, up to 30 s of silence, are not used.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Any, Final, LiteralString

import neo4j
from neo4j import exceptions as vendor

from app.errors import ConfigurationError, OutageError, PermanentError, ProcessorError, TransientError
from app.neo4j_quries import PING

logger = logging.getLogger(__name__)

SERVICE: Final = "Neo4j"
CONNECT_TIMEOUT_SECONDS: Final = 3.0
ACQUISITION_TIMEOUT_SECONDS: Final = 6.0  # of a pooled connection, a new one's handshake included
MAX_CONNECTION_LIFETIME_SECONDS: Final = 45 * 60  # Aura and load balancers cut connections at 60 minutes
LIVENESS_CHECK_SECONDS: Final = 10.0  # a connection idle for longer is tried before it is used
MAX_CONNECTIONS: Final = 20
QUERY_TIMEOUT_SECONDS: Final = 30.0  # the server ends the query itself
PING_TIMEOUT_SECONDS: Final = 3.0
ANSWER_MARGIN_SECONDS: Final = 5.0  # later than that the server is not answering at all
MAX_REASON_CHARACTERS: Final = 300

_OUTAGE_CODES: Final = (
    "Neo.ClientError.Security.",
    "Neo.ClientError.Database.",
    "Neo.ClientError.Cluster.",
    "Neo.TransientError.Cluster.",
    "Neo.TransientError.General.DatabaseUnavailable",
    "Neo.TransientError.Database.",
)
_TIMEOUT_CODES: Final = (
    "Neo.ClientError.Transaction.TransactionTimedOut",
    "Neo.ClientError.Transaction.Terminated",
    "Neo.ClientError.Transaction.LockClientStopped",
)


class QueryTimeoutError(TransientError):
    """The server ended one query because it took too long; a smaller one may succeed."""


def open_driver(uri: str, user: str, password: str) -> neo4j.Driver:
    """A driver with a pool of its own; nothing connects yet. `bolt` and `neo4j` URIs, with +s and +ssc for TLS."""
    try:
        return neo4j.GraphDatabase.driver(
            uri,
            auth=(user, password),
            connection_timeout=CONNECT_TIMEOUT_SECONDS,
            connection_acquisition_timeout=ACQUISITION_TIMEOUT_SECONDS,
            max_connection_lifetime=MAX_CONNECTION_LIFETIME_SECONDS,
            max_connection_pool_size=MAX_CONNECTIONS,
            liveness_check_timeout=LIVENESS_CHECK_SECONDS,
            keep_alive=True,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
        )
    except (vendor.DriverError, ValueError):
        # The driver's message holds the whole URI, and somebody may have put a password there.
        raise ConfigurationError(
            "NEO4J_URI cannot be used: it must be bolt:// or neo4j://, +s or +ssc for TLS, with host and port alone"
        ) from None


class Reader:
    """Runs read-only queries on the leader."""

    def __init__(self, driver: neo4j.Driver, database: str | None) -> None:
        """`database` None: the user's home database."""
        self._driver = driver
        self._database = database

    def read[T](
        self,
        query: LiteralString,
        consume: Callable[[Iterator[list[Any]]], T],
        *,
        seconds: float = QUERY_TIMEOUT_SECONDS,
        **parameters: Any,
    ) -> T:
        """What `consume` makes of the rows' values, while they arrive; it may be called a second time, from the start.

        Raises `OutageError`, `TransientError` (`QueryTimeoutError` after `seconds`) or `PermanentError`.
        """
        try:
            return self._run(query, consume, seconds, parameters)
        except (vendor.GqlError, OSError) as error:
            raise translate(error) from error

    def verify(self) -> None:
        """Raise `ConfigurationError` when waiting would not mend it, `OutageError` when it might."""
        try:
            self._run(PING, list, PING_TIMEOUT_SECONDS, {})
        except (vendor.AuthError, vendor.ConfigurationError) as error:
            raise ConfigurationError(f"{SERVICE} refuses us: {_brief(error)}") from error
        except vendor.ClientError as error:
            if (error.code or "").startswith("Neo.ClientError.Database."):
                raise ConfigurationError(f"NEO4J_DATABASE cannot be used: {_brief(error)}") from error
            raise translate(error) from error
        except (vendor.GqlError, OSError) as error:
            raise translate(error) from error

    def _run[T](
        self,
        query: LiteralString,
        consume: Callable[[Iterator[list[Any]]], T],
        seconds: float,
        parameters: dict[str, Any],
    ) -> T:
        bounded = neo4j.Query(query, timeout=seconds)

        def run() -> T:
            # Write access is what the driver calls the leader; a fetch size of -1 asks for all rows at once.
            with self._driver.session(
                database=self._database, default_access_mode=neo4j.WRITE_ACCESS, fetch_size=-1
            ) as session:
                return consume(list(record.values()) for record in session.run(bounded, parameters))

        return within(seconds + ANSWER_MARGIN_SECONDS, lambda: self._repeated(run))

    @staticmethod
    def _repeated[T](run: Callable[[], T]) -> T:
        """Once more on another connection when one broke: it may have been cut while idle, by a restart or a proxy.

        The driver has dropped the others that were idle by then.
        """
        try:
            return run()
        except (vendor.ServiceUnavailable, vendor.SessionExpired) as error:
            logger.debug("Reading again after: %s", error)
            return run()


def within[T](seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or `OutageError` after `seconds`: then its thread is left to the driver's own limits."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            future.set_exception(error)

    Thread(target=run, name="neo4j-read", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        if future.done():
            raise
        raise OutageError(SERVICE, f"no answer within {seconds:g} s") from error


def translate(error: Exception) -> ProcessorError:
    """What kind of failure a vendor's error is."""
    code = error.code or "" if isinstance(error, vendor.Neo4jError) else ""
    if isinstance(error, vendor.Forbidden):
        return PermanentError(f"{SERVICE} forbids it: {_brief(error)}")
    if not isinstance(error, vendor.Neo4jError) or code.startswith(_OUTAGE_CODES):
        return OutageError(SERVICE, _brief(error))
    if isinstance(error, vendor.DatabaseUnavailable | vendor.NotALeader | vendor.ForbiddenOnReadOnlyDatabase):
        return OutageError(SERVICE, _brief(error))
    if code.startswith(_TIMEOUT_CODES):
        return QueryTimeoutError(_brief(error))
    if isinstance(error, vendor.ClientError):
        return PermanentError(f"{SERVICE} refuses the query: {_brief(error)}")
    return TransientError(f"{SERVICE}: {_brief(error)}")


def _brief(error: Exception) -> str:
    """One line, cut short; without what a server's message may go on with: the query and its data."""
    if isinstance(error, vendor.Neo4jError):
        text = f"{error.code}: {(error.message or '').strip().partition('\n')[0]}"
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]}..."
