"""Outages pause the worker: while a service is down no message is received, so that none uses up its receives.

Invariant: an outage is said once when it starts and once when it ends, whoever meets it meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Gate:
    """Open while no service is known to be down. Safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._down_since: dict[str, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether nothing is known to be down."""
        return not self._down_since

    @property
    def down_since(self) -> dict[str, float]:
        """When each service that is down was found so, on this gate's clock."""
        with self._lock:
            return dict(self._down_since)

    def close(self, service: str, reason: str) -> None:
        """`service` was found down; logged when it was not known to be."""
        with self._lock:
            if service in self._down_since:
                return
            self._down_since[service] = self._clock()
        log.warning("%s is down, receiving is paused: %s", service, reason)

    def reopen(self, service: str) -> None:
        """`service` answers again; says so."""
        with self._lock:
            since = self._down_since.pop(service)
        log.warning("%s is back after %.1f s, receiving goes on", service, self._clock() - since)
