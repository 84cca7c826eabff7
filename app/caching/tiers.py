"""Where pages come from: this process's memory, then a cache that workers share, then the graph.

Invariant: a caller never gets a page that was read before the time that it asks for (docs/formats.md), unless it
asks for a time after its own claim, which no page can satisfy: then it gets one as of its claim. Threads that
miss the same page at once load it once, or twice where what is read ahead is overtaken; workers too, as long as the
shared cache works. Each part of a load is kept as it arrives, so that a load that fails later is not begun from the
start; a page that takes too long to load is waited for once and not by one thread after another, and what is read ahead
keeps nobody waiting for long.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Final, Protocol, Self

from app.caching.ahead import Enter, ReadAhead
from app.caching.key import derive_key
from app.caching.memory import MemoryTier
from app.caching.shared import MARKER_MS, SharedTier
from app.core.meter import NO_METER, Meter
from app.errors import OutageError, QueryTimeoutError, TransientError
from app.pages.page import Page
from app.pages.reading import Reading
from app.threads.background import Background

FIRST_POLL_SECONDS: Final = 0.02
LONGEST_POLL_SECONDS: Final = 0.2
TOO_SLOW_SECONDS: Final = 30.0  # for how long a page that took too long is not asked for again
LOOK_SECONDS: Final = 0.5  # how often who waits for another thread's load looks whether it came further
LOOKS_AHEAD: Final = 2  # how often who waits for what is read ahead looks, before he reads his page himself


class PageLoader(Protocol):
    """The graph, to a cache."""

    @property
    def graph_id(self) -> str:
        """Which graph it is; no secret in it."""
        ...

    def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
        """A page for every id of `needs`, part by part, read now, or at hand and as fresh as `needs` asks for.

        Raises `OutageError` or `TransientError`, after what could be loaded all the same; `QueryTimeoutError` with the
        pages that are to blame.
        """
        ...


@dataclass(slots=True, eq=False)
class _Load:
    """What one thread loads for all who wait; it tells them how far it has come. `is_ahead`: for nobody yet."""

    is_ahead: bool
    steps: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """One page of a load, on its way."""

    load: _Load
    page: Future[Page] = field(default_factory=Future)


class PageCache:
    """A `PageSource` (see app/pages/walk.py). Safe to use from several threads."""

    def __init__(
        self,
        loader: PageLoader,
        memory: MemoryTier,
        shared: SharedTier | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        run_in_background: Callable[[Callable[[], None]], None] = lambda work: work(),
        enter: Enter = nullcontext,
        meter: Meter = NO_METER,
    ) -> None:
        """`shared` None: without a shared cache everything works, only slower. Clock and sleep in seconds.

        `run_in_background` does what nobody waits for: sharing what was loaded. `enter`: see `ReadAhead`.
        """
        self._loader = loader
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._sleep = sleep
        self._run_in_background = run_in_background
        self._meter = meter
        self._lock = Lock()
        self._flights: dict[str, _Flight] = {}
        self._too_slow_until: dict[str, float] = {}
        self._ahead = ReadAhead(partial(self._get, is_ahead=True), memory, enter=enter)

    @classmethod
    def connect(
        cls,
        loader: PageLoader,
        *,
        memory_bytes: int,
        url: str | None,
        ttl_seconds: int,
        secret: str,
        clock_id: str,
        enter: Enter = nullcontext,
        meter: Meter = NO_METER,
    ) -> Self:
        """With Dragonfly at `url` (redis:// or rediss://), None for none. Nothing connects yet.

        `memory_bytes` bounds what pages take in this process, `ttl_seconds` how long Dragonfly keeps one.
        `secret` and `clock_id`: what makes workers share pages, see app/caching/key.py. `enter`: see `ReadAhead`.
        Raises `ConfigurationError` for a URL that makes no sense.
        """
        shared = None
        if url:
            with ThreadPoolExecutor(1) as aside:
                key = aside.submit(derive_key, secret, loader.graph_id, clock_id)  # leaves the interpreter to others
                from app.caching.redis_store import RedisStore  # a tenth of the start, for those who have one

            shared = SharedTier(RedisStore(url), key.result(), ttl_seconds, meter=meter)
        background = Background("sharing pages")
        memory = MemoryTier(memory_bytes)
        return cls(loader, memory, shared, run_in_background=background, enter=enter, meter=meter)

    @property
    def is_shared_up(self) -> bool | None:
        """Whether the shared cache works, as far as is known; None without one."""
        return None if self._shared is None else self._shared.is_up

    def get(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """See `PageSource`. Raises what loading raises.

        `reading.came_further` is called for each level that is asked for, and for each part that this thread or the
        one that it waits for receives.
        """
        return self._get(needs, reading)

    def _get(self, needs: Mapping[str, int], reading: Reading, *, is_ahead: bool = False) -> Mapping[str, Page]:
        reading.came_further()
        overtaken: set[_Load] = set()
        found = self._memory.get(needs)
        if not is_ahead:
            self._meter.pages("memory", len(found))
        while len(found) < len(needs):
            missing = _without(needs, found)
            self._refuse_too_slow(missing)
            mine, theirs = self._take_off(missing, _Load(is_ahead), overtaken)
            if mine:
                found |= self._fly(mine, missing, reading)
            for name, flight in theirs.items():
                page = self._await(flight, reading, overtaken)
                if page is not None and page.read_at_us >= missing[name]:
                    found[name] = page
                    self._meter.pages("memory", 1)
        return found

    def _refuse_too_slow(self, missing: Mapping[str, int]) -> None:
        """What just took too long for another thread is not asked for again at once."""
        now = self._clock()
        with self._lock:
            refused = [name for name in missing if self._too_slow_until.get(name, now) > now]
        if refused:
            raise QueryTimeoutError(f"the page of manifestation {refused[0]!r} took too long to read just now", refused)

    def _take_off(
        self, missing: Mapping[str, int], load: _Load, overtaken: Container[_Load]
    ) -> tuple[dict[str, _Flight], dict[str, _Flight]]:
        """The flights that this thread leads from now on, and those that others lead and that are not overtaken."""
        mine: dict[str, _Flight] = {}
        theirs: dict[str, _Flight] = {}
        with self._lock:
            for name in missing:
                flight = self._flights.get(name)
                if flight is None or flight.load in overtaken:
                    mine[name] = self._flights[name] = _Flight(load)
                else:
                    theirs[name] = flight
        return mine, theirs

    def _fly(self, flights: Mapping[str, _Flight], needs: Mapping[str, int], reading: Reading) -> dict[str, Page]:
        """Fetch for all who wait for these; whatever happens, nobody waits for them afterwards."""
        pages: dict[str, Page] = {}
        load = next(iter(flights.values())).load

        def came_further() -> None:
            load.steps += 1
            reading.came_further()

        try:
            self._ahead.begin(max(needs.values()), reading)
            told = replace(reading, at_hand=list(reading.at_hand), came_further=came_further)
            for part in self._fetch({name: needs[name] for name in flights}, told):
                pages |= part
                self._land({name: flights[name] for name in part})
                for name, page in part.items():
                    flights[name].page.set_result(page)
                if part:
                    came_further()
                if load.is_ahead and self._ahead.room_bytes(max(needs.values())) < 0:
                    raise TransientError("what is read ahead is larger than it seemed and has filled its half")
        except BaseException as error:
            if isinstance(error, QueryTimeoutError):
                self._remember_too_slow(error.pages)
            lost = _without(flights, pages)
            self._land(lost)
            for flight in lost.values():
                flight.page.set_exception(error)
            raise
        return pages

    def _land(self, flights: Mapping[str, _Flight]) -> None:
        with self._lock:
            for name, flight in flights.items():
                if self._flights.get(name) is flight:  # it may have been overtaken
                    del self._flights[name]

    def _remember_too_slow(self, names: Iterable[str]) -> None:
        now = self._clock()
        with self._lock:
            still = {name: until for name, until in self._too_slow_until.items() if until > now}
            self._too_slow_until = still | dict.fromkeys(names, now + TOO_SLOW_SECONDS)

    def _await(self, flight: _Flight, reading: Reading, overtaken: set[_Load]) -> Page | None:
        """None when the page must be fetched again: another's failure is only ours when the graph is down.

        A page that took too long is remembered by then, so that it is not fetched by one thread after another. What is
        read ahead is soon overtaken: it may be busy with pages that we have no need of.
        """
        seen = looks = 0
        while not wait([flight.page], 0 if flight.load in overtaken else LOOK_SECONDS).done:
            looks += 1
            if flight.load.is_ahead and looks == LOOKS_AHEAD:
                overtaken.add(flight.load)
            if flight.load in overtaken:
                return None
            if flight.load.steps != seen:
                seen = flight.load.steps
                reading.came_further()
        error = flight.page.exception()
        if error is None:
            return flight.page.result()
        if isinstance(error, OutageError):
            raise type(error)(error.service, error.reason) from error
        return None

    def _fetch(self, needs: Mapping[str, int], reading: Reading) -> Iterator[dict[str, Page]]:
        """From memory once more, as the last flight may have landed just before ours took off; then from afar."""
        yield (pages := self._memory.get(needs))
        self._meter.pages("memory", len(pages))
        missing = _without(needs, pages)
        if self._shared is None:
            yield from self._load(missing, reading)
            return
        yield (cached := self._shared.get(missing, reading.read_at_us))
        self._meter.pages("shared", len(cached))
        self._memory.put(cached.values())
        missing = _without(missing, cached)
        deadline = self._clock() + MARKER_MS / 1000
        ours = self._shared.announce(missing, reading.read_at_us)
        theirs = _without(missing, ours)
        yield from self._load(_without(missing, theirs), reading)
        yield (come := self._wait(theirs, deadline))
        yield from self._load(_without(theirs, come), reading)

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
        self._meter.pages("shared", len(pages))
        self._memory.put(pages.values())
        return pages

    def _load(self, needs: Mapping[str, int], reading: Reading) -> Iterator[dict[str, Page]]:
        """From the graph, for everybody."""
        if not needs:
            return
        for part in self._loader.load_parts(needs, reading):
            pages = dict(part)
            self._meter.pages("graph", len(pages))
            self._memory.put(pages.values())
            if (shared := self._shared) is not None:
                self._run_in_background(partial(shared.put, pages.values()))
            yield pages


def _without[T](names: Mapping[str, T], others: Container[str]) -> dict[str, T]:
    return {name: value for name, value in names.items() if name not in others}
