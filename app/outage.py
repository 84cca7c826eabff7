"""Outages pause the worker: while a service is down nothing is received, so nothing burns its receives.

Invariant: said once when it starts and once when it ends; one thread probes, with backoff, and all others wait.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from app.errors import ProcessorError
from app.stopping import Stop

log = logging.getLogger(__name__)

FIRST_PROBE_SECONDS: Final = 0.5
SLOWEST_PROBE_SECONDS: Final = 15.0
RELAPSE_SECONDS: Final = 30.0
"""A service that fails again so soon after it came back is probed no faster than before."""


class Gate:
    """Open while every service answers. `probes`: service name to a call that raises while it does not."""

    def __init__(
        self, probes: Mapping[str, Callable[[], object]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probes = dict(probes)
        self._clock = clock
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._down: dict[str, float] = {}
        self._mended_at: dict[str, float] = {}
        self._delays: dict[str, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether nothing is known to be down."""
        return not self._down

    def close(self, service: str, reason: str) -> None:
        """`service` was found down; says so unless that is known."""
        with self._lock:
            if service in self._down:
                return
            now = self._clock()
            self._down[service] = now
            if now - self._mended_at.get(service, -RELAPSE_SECONDS) >= RELAPSE_SECONDS:
                self._delays[service] = FIRST_PROBE_SECONDS
        log.warning("%s is down, receiving is paused: %s", service, reason)

    def wait_until_open(self, stop: Stop) -> bool:
        """Return True once everything answers, False when `stop` is set first. Probes if nobody else does."""
        while self._down and not stop.is_set():
            if not self._probing.acquire(timeout=0.2):
                continue
            try:
                self._probe_all(stop)
            finally:
                self._probing.release()
        return not stop.is_set()

    def _probe_all(self, stop: Stop) -> None:
        for service in list(self._down):
            delay = self._delays.get(service, FIRST_PROBE_SECONDS)
            if stop.wait(delay * random.uniform(0.7, 1.0)):  # noqa: S311  (jitter)
                return
            self._delays[service] = min(delay * 2, SLOWEST_PROBE_SECONDS)
            self._probe(service)

    def _probe(self, service: str) -> None:
        probe = self._probes.get(service)
        try:
            if probe is not None:
                probe()
        except ProcessorError as error:
            log.debug("%s is still down: %s", service, error)
            return
        with self._lock:
            since = self._down.pop(service)
            self._mended_at[service] = now = self._clock()
        log.warning("%s is back after %.1f s, receiving goes on", service, now - since)
