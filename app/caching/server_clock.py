"""What PostgreSQL's clock can show now, as far as a process knows that asks it only when it claims.

Invariant: a time that PostgreSQL has shown to any worker does not lie after `latest_us`; one that lies after now by
more than the slack does. (Where that clock is set back, what it showed before counts as now until it has caught up.)

Each claim tells a moment of that clock, and is told here a while later. The one that took the least while tells best
how far that clock is ahead of ours, which measures the time from then on.
"""

from collections.abc import Callable
from threading import Lock
from typing import Final

SLACK_US: Final = 10_000_000  # a claim's way here, and clocks that go at different speeds


class ServerClock:
    """Safe to use from several threads. `clock` in seconds, never set back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._ahead_us: int | None = None

    def saw(self, moment_us: int) -> None:
        """PostgreSQL showed this time (microseconds since the epoch) just now, or some time ago."""
        ahead_us = moment_us - self._ours_us()
        with self._lock:
            if self._ahead_us is None or ahead_us > self._ahead_us:
                self._ahead_us = ahead_us

    @property
    def now_us(self) -> int:
        """The time on that clock, or somewhat earlier; without any claim yet before all times."""
        return -SLACK_US - 1 if self._ahead_us is None else self._ours_us() + self._ahead_us

    @property
    def latest_us(self) -> int:
        """No true time of that clock lies after it; without any claim yet none is believed."""
        return self.now_us + SLACK_US

    def _ours_us(self) -> int:
        return int(self._clock() * 1_000_000)
