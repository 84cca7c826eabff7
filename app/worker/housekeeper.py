"""The thread that relays completions as they are handed over, and sweeps now and then.

Invariant: nothing that fails ends it, and handing over never blocks; what it could not relay is left to a sweep.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from app.core.endings import Announcement
from app.errors import OutageError, ProcessorError
from app.outbox.pace import Pace
from app.outbox.relay import Relay
from app.outbox.sweep import Sweep
from app.threads.gate import Gate
from app.threads.stopping import Stop

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
"""How often the queue is asked whether lost messages can come back faster; asked only when there are more of them."""
STEP_SECONDS: Final = 0.2


class Housekeeper:
    """The thread that relays what the finishers hand over at once, and sweeps now and then."""

    def __init__(self, relay: Relay, sweep: Sweep, gate: Gate, every_seconds: float = SWEEP_SECONDS) -> None:
        self._relay = relay
        self._sweep = sweep
        self._gate = gate
        self._every_seconds = every_seconds
        self._pace = Pace()
        self._inbox: queue.SimpleQueue[Sequence[Announcement]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending = 0

    def submit(self, announcements: Sequence[Announcement]) -> None:
        """Send these soon; if that fails a sweep will. Never blocks."""
        if announcements:
            self._count(len(announcements))
            self._inbox.put(announcements)

    @property
    def is_idle(self) -> bool:
        """Whether everything handed over has been dealt with."""
        return self._pending == 0

    def run(self, stop: Stop) -> None:
        """Relay and sweep until `stop`, then relay what is left."""
        # Soon, since what was forgotten may wait for just this start; spread, since workers start together.
        next_sweep = time.monotonic() + self._every_seconds * random.random() / 6  # noqa: S311
        next_look = 0.0
        while not stop.is_set():
            if self._relay_next(STEP_SECONDS):
                continue
            now = time.monotonic()
            if now >= next_sweep:
                self._pace.slow_down()
            elif self._pace.has_more and now >= next_look:
                next_look = now + LOOK_SECONDS
                if not self._may_go_on():
                    continue
            else:
                continue
            self._try(self._sweep_once, "A sweep")
            next_sweep = time.monotonic() + self._every_seconds * random.uniform(0.8, 1.2)  # noqa: S311
        while self._relay_next(0.0):
            pass

    def _relay_next(self, wait_seconds: float) -> bool:
        """Relay what comes within `wait_seconds`; whether there was anything."""
        try:
            announcements = self._inbox.get(block=wait_seconds > 0, timeout=wait_seconds)
        except queue.Empty:
            return False
        self._try(lambda: self._relay.send(announcements), "Relaying completions")
        self._count(-len(announcements))
        return True

    def _count(self, more: int) -> None:
        with self._lock:
            self._pending += more

    def _may_go_on(self) -> bool:
        """Whether lost messages that were sent again are worked off, so that the next can follow at once."""
        waiting: list[int] = []
        if self._gate.is_open:
            self._try(lambda: waiting.append(self._sweep.count_waiting()), "Asking the queue")
        return bool(waiting) and self._pace.speed_up(waiting[0])

    def _sweep_once(self) -> None:
        resent = 0
        try:
            if self._gate.is_open:
                resent = self._sweep.run(limit=self._pace.limit).segments_resent
        finally:
            self._pace.note(resent)

    def _try(self, step: Callable[[], object], what: str) -> None:
        try:
            step()
        except OutageError as error:
            self._gate.close(error.service, error.reason)
        except ProcessorError as error:
            log.warning("%s failed, and is tried again: %s", what, error)
        except Exception:
            log.exception("%s failed, and is tried again", what)
