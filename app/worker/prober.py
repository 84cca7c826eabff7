"""Finds out when a service that was down is back.

Invariant: one thread probes, with backoff, and all others wait.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from app.errors import ProcessorError
from app.threads.gate import Gate
from app.threads.stopping import Stop

log = logging.getLogger(__name__)

FIRST_PROBE_SECONDS: Final = 0.5
SLOWEST_PROBE_SECONDS: Final = 15.0
RELAPSE_SECONDS: Final = 30.0
"""A service that fails again so soon after it came back is probed no faster than before."""


class Prober:
    """Reopens the gate. `probes`: service name to a call that raises `ProcessorError` while it does not answer."""

    def __init__(
        self,
        gate: Gate,
        probes: Mapping[str, Callable[[], object]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: the gate's."""
        self._gate = gate
        self._probes = dict(probes)
        self._clock = clock
        self._probing = threading.Lock()
        self._outages: dict[str, float] = {}
        self._back_at: dict[str, float] = {}
        self._delays: dict[str, float] = {}

    def wait_until_open(self, stop: Stop) -> bool:
        """Return True once everything answers, False when `stop` is set first. Probes if nobody else does."""
        while not self._gate.is_open and not stop.is_set():
            if not self._probing.acquire(timeout=0.2):
                continue
            try:
                self._probe_all(stop)
            finally:
                self._probing.release()
        return not stop.is_set()

    def _probe_all(self, stop: Stop) -> None:
        for service, since in self._gate.down_since.items():
            delay = self._delay_of(service, since)
            if stop.wait(delay * random.uniform(0.7, 1.0)):  # noqa: S311  (jitter)
                return
            self._delays[service] = min(delay * 2, SLOWEST_PROBE_SECONDS)
            self._probe(service)

    def _delay_of(self, service: str, since: float) -> float:
        """Seconds before the next probe: the shortest in a new outage, unless the last one ended a moment ago."""
        if self._outages.get(service) != since:
            self._outages[service] = since
            if since - self._back_at.get(service, -RELAPSE_SECONDS) >= RELAPSE_SECONDS:
                self._delays[service] = FIRST_PROBE_SECONDS
        return self._delays.get(service, FIRST_PROBE_SECONDS)

    def _probe(self, service: str) -> None:
        probe = self._probes.get(service)
        try:
            if probe is not None:
                probe()
        except ProcessorError as error:
            log.debug("%s is still down: %s", service, error)
            return
        self._back_at[service] = self._clock()
        self._gate.reopen(service)
