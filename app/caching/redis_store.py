"""The key-value store behind the shared tier: Dragonfly, or whatever else speaks the Redis protocol.

Invariant: every call is one round trip of plain MGET or SET, waits for bytes no longer than a short time-out, takes no
more of them than `MAX_REPLY_BYTES`, whatever the server holds, and fails only with `StoreError`. Neither the URL nor
the password is ever part of an error.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import redis
from redis._parsers import _HiredisParser
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from app.caching.store import Entry, StoreError
from app.errors import ConfigurationError

TIMEOUT_SECONDS: Final = 0.5  # to connect, and for each wait for bytes
MAX_CONNECTIONS: Final = 64
MAX_REPLY_BYTES: Final = 128 * 1024 * 1024
"""Two of the largest values that a page may have, or a frontier of 64 pages of 40,000 segments each."""


class RedisStore:
    """A pool of connections; nothing connects before the first call. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """`url`: redis:// or, with TLS, rediss://. Raises `ConfigurationError`."""
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                socket_keepalive=True,
                max_connections=MAX_CONNECTIONS,
                parser_class=_BoundedParser,
                # The pool itself notices connections that were cut while idle; all else is ours to wait out.
                retry=Retry(NoBackoff(), 0),
                # Nothing but AUTH and SELECT before the first command.
                protocol=2,
                driver_info=None,
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except (ValueError, redis.RedisError):
            raise ConfigurationError("DRAGONFLY_URL is not a URL that the cache's client understands") from None

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        try:
            values = cast(Sequence[Any], self._client.mget(list(keys)))
        except (redis.RedisError, OSError, ValueError) as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        if len(values) != len(keys):
            raise StoreError(f"{len(values)} values for {len(keys)} keys")
        return [value if isinstance(value, bytes) else None for value in values]

    def set_many(self, entries: Sequence[Entry]) -> list[bool]:
        """See `Store`."""
        pipeline = self._client.pipeline(transaction=False)
        for entry in entries:
            pipeline.set(entry.key, entry.value, px=entry.expires_ms, nx=entry.only_if_absent)
        try:
            answers = pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError, ValueError) as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise StoreError(f"{type(answer).__name__}: {answer}")
        return [bool(answer) for answer in answers]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _BoundedParser(_HiredisParser):
    """Breaks off a reply that grows too long: the client would take whatever length a server announces."""

    _reader: Any

    def on_connect(self, connection: Any, **kwargs: Any) -> None:
        """See the client's parsers: a reader is made for each connection."""
        cast(Any, super()).on_connect(connection, **kwargs)
        self._reader = _BoundedReader(self._reader)


class _BoundedReader:
    """Stands before hiredis' reader, which the parser feeds until it has a whole reply."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._fed_bytes = 0

    def feed(self, buffer: bytearray, start: int, length: int) -> None:
        self._fed_bytes += length
        if self._fed_bytes > MAX_REPLY_BYTES:
            raise redis.ConnectionError(f"a reply is longer than {MAX_REPLY_BYTES} bytes")
        self._reader.feed(buffer, start, length)

    def gets(self, *decode: bool) -> Any:
        reply = self._reader.gets(*decode)
        if reply is not NOT_ENOUGH_DATA:
            self._fed_bytes = 0
        return reply

    def has_data(self) -> bool:
        return bool(self._reader.has_data())
