"""The second tier: pages that workers share, in a store that may be slow, dead or full of rubbish at any time.

Invariant: nothing that goes wrong here reaches the caller. A store that fails costs one short time-out, then it is left
alone for a while; a value that is not a page of this format, under this key and of this manifestation, or that says it
was read later than now, is a miss. So whoever can write to the store can take pages away, and add or change none.

A marker says that somebody is loading a page, and how fresh it is going to be. It lives for `MARKER_MS`, whatever
becomes of its owner, and nobody waits longer. It is no proof: a false one costs that wait.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import batched
from threading import Lock, get_ident
from typing import Final, NamedTuple

from app.caching.key import key_prefix
from app.caching.memory import SHORT_SECONDS, is_short_lived
from app.caching.server_clock import ServerClock
from app.caching.store import Entry, Store, StoreError
from app.core.meter import NO_METER, Meter, Service
from app.pages.format import FORMAT_VERSION, PageTooLargeError, decode_page, encode_page
from app.pages.page import Page, PageFormatError

logger = logging.getLogger(__name__)

SERVICE: Final[Service] = "Dragonfly"
MARKER_MS: Final = 2_000
FIRST_REST_SECONDS: Final = 10.0  # for how long a store that failed is left alone; doubles while it fails
LONGEST_REST_SECONDS: Final = 60.0
MAX_KEYS_A_CALL: Final = 64
MAX_BYTES_A_CALL: Final = 4_000_000
SHORT_US: Final = int(SHORT_SECONDS * 1_000_000)
MAX_MARKER_BYTES: Final = 20
RUBBISH_WARNING_SECONDS: Final = 60.0  # no more than one warning in this time


class Polled(NamedTuple):
    """`ready`: the pages that have come. `pending`: those that somebody else is still loading, fresh enough."""

    ready: dict[str, Page]
    pending: set[str]


class SharedTier:
    """Safe to use from several threads. `clock` in seconds."""

    def __init__(
        self,
        store: Store,
        key: bytes,
        ttl_seconds: int,
        clock: Callable[[], float] = time.monotonic,
        meter: Meter = NO_METER,
    ) -> None:
        """`key`: see app/caching/key.py; pages under different keys never meet."""
        self._key = key
        self._prefix = f"srp:{FORMAT_VERSION}:{key_prefix(key)}"
        self._store = store
        self._meter = meter
        self._ttl_ms = ttl_seconds * 1000
        self._clock = clock
        self._breaker = _Breaker(clock)
        self._server_clock = ServerClock(clock)
        self._said_too_large = False
        self._warned_at = -RUBBISH_WARNING_SECONDS
        self._rubbish = 0

    @property
    def is_up(self) -> bool:
        """Whether the store works, as far as is known."""
        return self._breaker.is_closed

    def get(self, needs: Mapping[str, int], read_at_us: int) -> dict[str, Page]:
        """Those that are here and were not read before the time (microseconds) that `needs` gives for them.

        `read_at_us`: what the caller's claim returned, which tells what is later than now; for `announce` the same.
        """
        self._server_clock.saw(read_at_us)
        found: dict[str, Page] = {}
        for chunk in batched(needs, MAX_KEYS_A_CALL):
            values = self._get_many([self._page_key(name) for name in chunk])
            found |= self._fresh(chunk, values, needs)
        return found

    def announce(self, ids: Iterable[str], read_at_us: int) -> set[str]:
        """Say that we load these, as of `read_at_us`; those of them that nobody else has announced."""
        self._server_clock.saw(read_at_us)
        wanted = list(ids)
        value = b"%d" % read_at_us
        answers = self._set_many([Entry(self._marker_key(name), value, MARKER_MS, True) for name in wanted])
        return {name for name, ours in zip(wanted, answers, strict=True) if ours} if answers else set(wanted)

    def poll(self, needs: Mapping[str, int]) -> Polled:
        """What has become of the pages that others announced; after `get` or `announce`."""
        ready: dict[str, Page] = {}
        pending: set[str] = set()
        for chunk in batched(needs, MAX_KEYS_A_CALL):
            keys = [self._page_key(name) for name in chunk] + [self._marker_key(name) for name in chunk]
            values = self._get_many(keys)
            found = self._fresh(chunk, values[: len(chunk)], needs)
            ready |= found
            pending |= {
                name
                for name, marker in zip(chunk, values[len(chunk) :], strict=True)
                if name not in found and self._promises(marker, needs[name])
            }
        return Polled(ready, pending)

    def put(self, pages: Iterable[Page]) -> None:
        """Keep these for the others."""
        if not self._breaker.is_closed:
            return
        batch: list[Entry] = []
        size = 0
        for page in pages:
            value = self._encode(page)
            if value is None:
                continue
            expires_ms = SHORT_US // 1000 if is_short_lived(page) else self._ttl_ms
            batch.append(Entry(self._page_key(page.manifestation_id), value, expires_ms))
            size += len(value)
            if size >= MAX_BYTES_A_CALL:
                self._set_many(batch)
                batch, size = [], 0
        self._set_many(batch)

    def _page_key(self, manifestation_id: str) -> str:
        return f"{self._prefix}:page:{manifestation_id}"

    def _marker_key(self, manifestation_id: str) -> str:
        return f"{self._prefix}:loading:{manifestation_id}"

    def _get_many(self, keys: list[str]) -> list[bytes | None]:
        """A value a key, None where there is none; all None while the store fails or is left alone after a failure."""
        if keys and self._breaker.lets_pass():
            try:
                with self._meter.call(SERVICE):
                    values = self._store.get_many(keys)
            except StoreError as error:
                self._breaker.failed(error)
            else:
                self._breaker.worked()
                return values
        return [None] * len(keys)

    def _set_many(self, entries: list[Entry]) -> list[bool]:
        """Whether each entry was set; no answers while the store fails or is left alone after a failure."""
        if entries and self._breaker.lets_pass():
            try:
                with self._meter.call(SERVICE):
                    answers = self._store.set_many(entries)
            except StoreError as error:
                self._breaker.failed(error)
            else:
                self._breaker.worked()
                return answers
        return []

    def _fresh(self, ids: Sequence[str], values: Sequence[bytes | None], needs: Mapping[str, int]) -> dict[str, Page]:
        found: dict[str, Page] = {}
        for name, value in zip(ids, values, strict=True):
            page = None if value is None else self._decode(value, name)
            if page is not None and page.read_at_us >= needs[name] and not self._is_over(page):
                found[name] = page
        return found

    def _is_over(self, page: Page) -> bool:
        """Whether it was to be believed for seconds, and is still there: the store keeps it no longer by itself."""
        return is_short_lived(page) and page.read_at_us < self._server_clock.now_us - SHORT_US

    def _encode(self, page: Page) -> bytes | None:
        """None for a page that is too large to be shared, which is said once."""
        try:
            return encode_page(page, self._key)
        except PageTooLargeError as error:
            if not self._said_too_large:
                self._said_too_large = True
                logger.info("The page of %s is too large to be shared (%s)", page.manifestation_id, error)
            return None

    def _decode(self, value: bytes, manifestation_id: str) -> Page | None:
        try:
            page = decode_page(value, manifestation_id, self._key)
            if page.read_at_us > self._server_clock.latest_us:
                raise PageFormatError("read later than now")
        except PageFormatError as error:
            self._warn(error, manifestation_id)
            return None
        return page

    def _warn(self, error: PageFormatError, manifestation_id: str) -> None:
        """Log the warning, unless one was logged a short while ago."""
        self._rubbish += 1
        now = self._clock()
        if now - self._warned_at >= RUBBISH_WARNING_SECONDS:
            self._warned_at = now
            logger.warning(
                "The cache holds what is no page of ours, it is read from Neo4j instead: %s (%d so far, last: %s)",
                error,
                self._rubbish,
                manifestation_id,
            )

    def _promises(self, marker: bytes | None, fresh_since_us: int) -> bool:
        """Whether it announces a page that is fresh enough and not one of the future."""
        if marker is None or not marker.isdigit() or len(marker) >= MAX_MARKER_BYTES:
            return False
        return fresh_since_us <= int(marker) <= self._server_clock.latest_us


class _Breaker:
    """Leaves a store that failed alone, for longer each time; then lets one caller try. Says so once each way.

    While the store rests only the caller who tries decides: others may still be hearing from before.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._rest_seconds = 0.0
        self._rests_until = 0.0
        self._tried_by = 0

    @property
    def is_closed(self) -> bool:
        """Whether the store works, as far as is known."""
        return self._rest_seconds == 0.0

    def lets_pass(self) -> bool:
        """Whether to call it now; while it rests, one caller once the rest is over."""
        if self.is_closed:
            return True
        with self._lock:
            now = self._clock()
            if self._rest_seconds and now < self._rests_until:
                return False
            self._rests_until = now + self._rest_seconds
            self._tried_by = get_ident()
            return True

    def failed(self, error: StoreError) -> None:
        """The store failed: leave it alone for a while."""
        with self._lock:
            was_closed = self.is_closed
            if not was_closed and self._tried_by != get_ident():
                return
            self._rest_seconds = min(max(FIRST_REST_SECONDS, 2 * self._rest_seconds), LONGEST_REST_SECONDS)
            self._rests_until = self._clock() + self._rest_seconds
            self._tried_by = 0
        if was_closed:
            logger.warning("The cache does not answer, pages are read from Neo4j meanwhile: %s", error)

    def worked(self) -> None:
        """The store answered: use it again."""
        if self.is_closed:
            return
        with self._lock:
            if self.is_closed or self._tried_by != get_ident():
                return
            self._rest_seconds, self._tried_by = 0.0, 0
        logger.info("The cache answers again")
