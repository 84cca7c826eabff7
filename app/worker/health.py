"""Whether this worker lives, and whether it can work: what a platform's probes ask.

Invariant: it answers from memory, so that a probe never waits for the service that it asks about, and it tells no
secret: names of services and threads, and times.
"""

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop

type Health = tuple[bool, dict[str, Any]]
"""Whether all is well, and what there is to say of it."""

STARTING: Final = "starting"
RUNNING: Final = "running"
STOPPING: Final = "stopping"


class Checkup:
    """Safe to share between threads. A dependency counts as down until it has been seen once."""

    def __init__(
        self,
        gate: Gate,
        progress: Progress,
        stop: Stop,
        dependencies: Collection[str],
        *,
        stall_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`dependencies`: what the worker can't work without, as the gate names them; `clock`: the gate's."""
        self._gate = gate
        self._progress = progress
        self._stop = stop
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._unseen = dict.fromkeys(dependencies, clock())
        self.dependencies = tuple(dependencies)

    def saw(self, dependency: str) -> None:
        """Note that a dependency has answered during the start."""
        self._unseen.pop(dependency, None)

    def down_seconds(self) -> dict[str, float]:
        """For how long each dependency that is down has been so."""
        now = self._clock()
        down = dict(self._unseen) | self._gate.down_since
        return {service: max(0.0, now - since) for service, since in down.items()}

    def live(self) -> Health:
        """Whether no thread hangs; one that does ends the process soon."""
        hanging = [thread.name for thread in self._progress.stalled(self._stall_seconds)]
        return not hanging, {"live": not hanging, "hanging": hanging}

    def ready(self) -> Health:
        """Whether it receives messages: every dependency is up and nobody has told it to stop."""
        down = self.down_seconds()
        state = STOPPING if self._stop.is_set() else STARTING if self._unseen else RUNNING
        is_ready = state == RUNNING and not down
        dependencies = {name: _dependency(down.get(name)) for name in self.dependencies}
        return is_ready, {"ready": is_ready, "state": state, "dependencies": dependencies}


def _dependency(down_seconds: float | None) -> dict[str, Any]:
    if down_seconds is None:
        return {"up": True}
    since = datetime.now(UTC) - timedelta(seconds=down_seconds)
    return {"up": False, "down_since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "down_seconds": round(down_seconds, 1)}
