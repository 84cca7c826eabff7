"""Where pages come from: this process's memory, then a cache that workers share, then the graph.

Invariant: a caller never gets a page that was read before the time that it asks for (shared/spec/cache.md), unless it
asks for a time after its own claim, which no page can satisfy: then it gets one as of its claim. Threads that
miss the same page at once load it once; workers too, as long as the shared cache works.
"""

import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Final, Protocol, Self

from app.background import Background
from app.cache_memory import MemoryTier
from app.cache_shared import MARKER_MS, SharedTier
from app.cache_store import RedisStore
from app.errors import OutageError
from app.page_key import derive_key
from app.pages import Page

FIRST_POLL_SECONDS: Final = 0.02
LONGEST_POLL_SECONDS: Final = 0.2


class PageLoader(Protocol):
    """The graph, to a cache."""

    @property
    def graph_id(self) -> str:
        """Which graph it is; no secret in it."""
        ...

    def load_pages(self, ids: Sequence[str], read_at_us: int, at_hand: Collection[Page] = ()) -> Mapping[str, Page]:
        """A page for every id, all of it read after `read_at_us`. Raises `OutageError` or `TransientError`.

        `at_hand`: see `PageSource`.
        """
        ...


class PageCache:
    """A `PageSource` (see app/traversal.py). Safe to use from several threads."""

    def __init__(
        self,
        loader: PageLoader,
        memory: MemoryTier,
        shared: SharedTier | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        beside: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        """`shared` None: without a shared cache everything works, only slower. Clock and sleep in seconds.

        `beside` does what nobody waits for: sharing what was loaded.
        """
        self._loader = loader
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._sleep = sleep
        self._beside = beside
        self._lock = Lock()
        self._flights: dict[str, Future[Page]] = {}

    @classmethod
    def connect(
        cls, loader: PageLoader, *, memory_bytes: int, url: str | None, ttl_seconds: int, secret: str, clock_id: str
    ) -> Self:
        """With Dragonfly at `url` (redis:// or rediss://), None for none. Nothing connects yet.

        `memory_bytes` bounds what pages take in this process, `ttl_seconds` how long Dragonfly keeps one.
        `secret` and `clock_id`: what makes workers share pages, see app/page_key.py.
        Raises `ConfigurationError` for a URL that makes no sense.
        """
        shared = None
        if url:
            shared = SharedTier(RedisStore(url), derive_key(secret, loader.graph_id, clock_id), ttl_seconds)
        return cls(loader, MemoryTier(memory_bytes), shared, beside=Background("sharing pages"))

    def get(self, needs: Mapping[str, int], read_at_us: int, at_hand: Collection[Page] = ()) -> Mapping[str, Page]:
        """See `PageSource`. Raises what loading raises."""
        found = self._memory.get(needs)
        while len(found) < len(needs):
            missing = _without(needs, found)
            mine, theirs = self._take_off(missing)
            if mine:
                wanted = {name: missing[name] for name in mine}
                found |= self._fly(mine, partial(self._fetch, wanted, read_at_us, at_hand))
            for name, flight in theirs.items():
                page = self._await(flight)
                if page is not None and page.read_at_us >= missing[name]:
                    found[name] = page
        return found

    def _take_off(self, missing: Mapping[str, int]) -> tuple[dict[str, Future[Page]], dict[str, Future[Page]]]:
        """The flights that this thread leads from now on, and those that others lead."""
        mine: dict[str, Future[Page]] = {}
        theirs: dict[str, Future[Page]] = {}
        with self._lock:
            for name in missing:
                flight = self._flights.get(name)
                if flight is None:
                    mine[name] = self._flights[name] = Future()
                else:
                    theirs[name] = flight
        return mine, theirs

    def _fly(self, flights: Mapping[str, Future[Page]], fetch: Callable[[], dict[str, Page]]) -> dict[str, Page]:
        """Fetch for all who wait for these; whatever happens, nobody waits for them afterwards."""
        try:
            pages = fetch()
        except BaseException as error:
            self._land(flights)
            for flight in flights.values():
                flight.set_exception(error)
            raise
        self._land(flights)
        for name, flight in flights.items():
            flight.set_result(pages[name])
        return pages

    def _land(self, flights: Mapping[str, Future[Page]]) -> None:
        with self._lock:
            for name in flights:
                del self._flights[name]

    def _await(self, flight: Future[Page]) -> Page | None:
        """None when the page must be fetched again: another's failure is only ours when the graph is down."""
        error = flight.exception()
        if error is None:
            return flight.result()
        if isinstance(error, OutageError):
            raise OutageError(error.service, error.reason) from error
        return None

    def _fetch(self, needs: Mapping[str, int], read_at_us: int, at_hand: Collection[Page]) -> dict[str, Page]:
        """From memory once more, as the last flight may have landed just before ours took off; then from afar."""
        load = partial(self._load, read_at_us=read_at_us, at_hand=at_hand)
        pages = self._memory.get(needs)
        missing = _without(needs, pages)
        if self._shared is None:
            return pages | load(list(missing))
        cached = self._shared.get(missing, read_at_us)
        self._memory.put(cached.values())
        pages |= cached
        missing = _without(missing, cached)
        deadline = self._clock() + MARKER_MS / 1000
        ours = self._shared.announce(missing, read_at_us)
        pages |= load([name for name in missing if name in ours])
        pages |= self._wait(_without(missing, ours), deadline)
        return pages | load([name for name in missing if name not in pages])

    def _wait(self, needs: Mapping[str, int], deadline: float) -> dict[str, Page]:
        """Those of the pages that other workers announced which come before the deadline."""
        pages: dict[str, Page] = {}
        pause = FIRST_POLL_SECONDS
        while needs and self._shared is not None:
            polled = self._shared.poll(needs)
            pages |= polled.ready
            needs = {name: needs[name] for name in polled.pending}
            if not needs or self._clock() + pause > deadline:
                break
            self._sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
        self._memory.put(pages.values())
        return pages

    def _load(self, ids: Sequence[str], read_at_us: int, at_hand: Collection[Page]) -> dict[str, Page]:
        """From the graph, for everybody."""
        if not ids:
            return {}
        pages = dict(self._loader.load_pages(ids, read_at_us, at_hand))
        self._memory.put(pages.values())
        if (shared := self._shared) is not None:
            self._beside(lambda: shared.put(pages.values()))
        return pages


def _without(needs: Mapping[str, int], names: Container[str]) -> dict[str, int]:
    return {name: fresh_since_us for name, fresh_since_us in needs.items() if name not in names}
