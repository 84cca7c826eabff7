"""A clock that is set by hand, a store in memory, and pages of a chosen size: what the tests of the cache stand on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.caching.store import Entry, StoreError
from app.pages.page import Page
from app.pages.reading import Reading
from tests.support.graphs import segmentation_of


@dataclass
class ManualClock:
    """Seconds; `sleep` moves it on, and remembers for how long it was asked to."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """No time passes but on this clock."""
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class FakeStore:
    """A `Store` in memory. While `error` is set every call fails; `calls` counts them."""

    clock: ManualClock = field(default_factory=ManualClock)
    values: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    error: str = ""
    calls: int = 0

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        self._called()
        return [self._get(key) for key in keys]

    def set_many(self, entries: Sequence[Entry]) -> list[bool]:
        """See `Store`."""
        self._called()
        return [self._set(entry) for entry in entries]

    def _called(self) -> None:
        self.calls += 1
        if self.error:
            raise StoreError(self.error)

    def _get(self, key: str) -> bytes | None:
        value, expires_at = self.values.get(key, (None, 0.0))
        return value if self.clock() < expires_at else None

    def _set(self, entry: Entry) -> bool:
        if entry.only_if_absent and self._get(entry.key) is not None:
            return False
        self.values[entry.key] = (entry.value, self.clock() + entry.expires_ms / 1000)
        return True


@dataclass
class PageMaker:
    """A `PageLoader` that makes pages up: whatever is asked for exists, and carries the time that it was asked at."""

    segments: int = 1
    exists: bool = True
    loads: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def graph_id(self) -> str:
        """See `PageLoader`."""
        return "made-up"

    def load_pages(self, needs: Mapping[str, int], reading: Reading) -> Mapping[str, Page]:
        """All of them."""
        self.loads.append(tuple(needs))
        return {name: self.page(name, reading.read_at_us) for name in needs}

    def load_parts(self, needs: Mapping[str, int], reading: Reading) -> Iterator[Mapping[str, Page]]:
        """See `PageLoader`: in one part."""
        yield self.load_pages(needs, reading)

    def page(self, name: str, read_at_us: int) -> Page:
        """The page that loading gives."""
        rows = [(f"{name}.{at}", at, at + 1) for at in range(self.segments)]
        return Page(name, read_at_us, self.exists, (), segmentation_of(rows))
