"""The driver: pooled connections, every wait bounded, every error in our own words.

Invariant: one read is one round trip, and waits for the server no longer than its bound, whatever the server does: a
stopped server, which the driver would wait two minutes for, is an outage like any other. What we do with the rows
ourselves, which takes long on a busy processor, is no waiting. Reads repeat once, and only after a connection broke;
the driver's own retries, up to 30 s of silence, are not used.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, Final, LiteralString

import neo4j
from neo4j import exceptions as vendor

from app.core.meter import NO_METER, Meter
from app.errors import (
    ConfigurationError,
    OutageError,
    ProcessorError,
    QueryTimeoutError,
    RefusedError,
    TransientError,
)
from app.neo4j_quries import PING
from app.pages.reading import Patience

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
LOOK_SECONDS: Final = 0.5  # how often the thread that waits looks whether the reading has come further
MAX_REASON_CHARACTERS: Final = 300

_OUTAGE_CODES: Final = (
    "Neo.ClientError.Security.",
    "Neo.ClientError.Database.",
    "Neo.ClientError.Cluster.",
    "Neo.TransientError.Cluster.",
    "Neo.TransientError.General.DatabaseUnavailable",
    "Neo.TransientError.Database.",
)
_TOO_MUCH_CODES: Final = (
    "Neo.ClientError.Transaction.TransactionTimedOut",
    "Neo.ClientError.Transaction.Terminated",
    "Neo.ClientError.Transaction.LockClientStopped",
    "Neo.ClientError.General.TransactionOutOfMemoryError",
    "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
    "Neo.TransientError.General.TransactionMemoryLimit",
)


class Watch:
    """What the thread that reads tells the one that waits: how far it came, and since when the server is silent."""

    def __init__(self, came_further: Callable[[], None] = lambda: None) -> None:
        """`came_further` is called by the thread that waits, now and then while rows come or are being used."""
        self.came_further = came_further
        self.steps = 0
        self._silent_since: float | None = None
        self._silent_seconds = 0.0

    def ask(self) -> None:
        """From now on we wait for the server, unless we did already."""
        if self._silent_since is None:
            self._silent_since = time.monotonic()

    def hear(self) -> None:
        """The server has sent something; the time until we ask again is our own."""
        self.steps += 1
        if self._silent_since is not None:
            self._silent_seconds += time.monotonic() - self._silent_since
            self._silent_since = None

    @property
    def silence_seconds(self) -> float:
        """For how long the server has been silent now."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def waited_seconds(self) -> float:
        """In all."""
        return self._silent_seconds + self.silence_seconds


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

    def __init__(self, driver: neo4j.Driver, database: str | None, meter: Meter = NO_METER) -> None:
        """`database` None: the user's home database."""
        self._driver = driver
        self._database = database
        self._meter = meter
        self._is_closed = False

    def close(self) -> None:
        """Read nothing any more; the driver stays open."""
        self._is_closed = True

    def read[T](
        self,
        query: LiteralString,
        consume: Callable[[Iterator[list[Any]]], T],
        *,
        seconds: float = QUERY_TIMEOUT_SECONDS,
        patience: Patience | None = None,
        came_further: Callable[[], None] = lambda: None,
        **parameters: Any,
    ) -> T:
        """What `consume` makes of the rows' values, while they arrive; it may be called a second time, from the start.

        The server ends the query after `seconds`, in which it may also have waited for us. What it let us wait is
        taken from `patience`. `came_further` is called by the calling thread now and then while rows come.
        Raises `OutageError` (`RefusedError` for a query that will not be run) or `TransientError`
        (`QueryTimeoutError` after `seconds`).
        """
        watch = Watch(came_further)
        try:
            with self._meter.call(SERVICE):
                return self._run(query, consume, seconds, parameters, watch)
        except (vendor.GqlError, OSError) as error:
            raise translate(error) from error
        finally:
            if patience is not None:
                patience.left -= watch.waited_seconds

    def verify(self) -> None:
        """Raise `ConfigurationError` when waiting would not help, `OutageError` when it might."""
        try:
            self._run(PING, list, PING_TIMEOUT_SECONDS, {}, Watch())
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
        watch: Watch,
    ) -> T:
        if self._is_closed:
            raise OutageError(SERVICE, "this connection to it was closed")
        bounded = neo4j.Query(query, timeout=seconds)

        def run() -> T:
            watch.ask()
            # Write access is what the driver calls the leader; a fetch size of -1 asks for all rows at once.
            with self._driver.session(
                database=self._database, default_access_mode=neo4j.WRITE_ACCESS, fetch_size=-1
            ) as session:
                return consume(_values(session.run(bounded, parameters), watch))

        return within(seconds + ANSWER_MARGIN_SECONDS, lambda: self._repeated(run), watch)

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


def _values(records: Iterable[neo4j.Record], watch: Watch) -> Iterator[list[Any]]:
    """The rows' values; between two of them the time is the consumer's."""
    for record in records:
        watch.hear()
        yield list(record.values())
        watch.steps += 1
        watch.ask()
    watch.hear()


def within[T](seconds: float, work: Callable[[], T], watch: Watch) -> T:
    """The result of `work`, or `OutageError` once the server is silent for `seconds`.

    The thread that then goes on waiting is left to the driver's own limits.
    """
    future: Future[T] = Future()
    seen = watch.steps

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            future.set_exception(error)

    watch.ask()
    Thread(target=run, name="neo4j-read", daemon=True).start()
    while not wait([future], min(LOOK_SECONDS, seconds)).done:
        if watch.silence_seconds >= seconds:
            raise OutageError(SERVICE, f"no answer within {seconds:g} s")
        if watch.steps != seen:
            seen = watch.steps
            watch.came_further()
    return future.result()


def translate(error: Exception) -> ProcessorError:
    """What kind of failure a vendor's error is: never a permanent one, as our queries are constant.

    A right that was taken away or a schema that was changed says nothing of the segments that meet it.
    """
    code = error.code or "" if isinstance(error, vendor.Neo4jError) else ""
    if isinstance(error, vendor.Forbidden):
        return RefusedError(SERVICE, _brief(error))
    if not isinstance(error, vendor.Neo4jError) or code.startswith(_OUTAGE_CODES):
        return OutageError(SERVICE, _brief(error))
    if isinstance(error, vendor.DatabaseUnavailable | vendor.NotALeader | vendor.ForbiddenOnReadOnlyDatabase):
        return OutageError(SERVICE, _brief(error))
    if code.startswith(_TOO_MUCH_CODES):
        return QueryTimeoutError(_brief(error))
    if isinstance(error, vendor.ClientError):
        return RefusedError(SERVICE, _brief(error))
    return TransientError(f"{SERVICE}: {_brief(error)}")


def _brief(error: Exception) -> str:
    """One line, cut short; without what a server's message may go on with: the query and its data."""
    if isinstance(error, vendor.Neo4jError):
        text = f"{error.code}: {(error.message or '').strip().partition('\n')[0]}"
    else:
        text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]}..."
