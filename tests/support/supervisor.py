"""Workers that are started again as soon as they end, as a platform does it.

Invariant: `size` of them run from entering the `with` block to its end, whatever kills them.
"""

import signal
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.support.worker import LIMIT_SECONDS, Worker, wait_until

LOOK_SECONDS = 0.05


class Supervisor:
    """`size` slots, each with a worker like ``python <arguments>``; killed at the end of the `with` block."""

    def __init__(self, size: int, environment: Mapping[str, str], *arguments: str) -> None:
        self.ended: list[Worker] = []
        """Those that have ended, in that order; their logs are kept."""
        self._environment = environment
        self._arguments = arguments
        self._size = size
        self._slots: list[Worker] = []
        self._lock = threading.RLock()
        self._retired = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._slots += [self._start() for _ in range(self._size)]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._retired.set()
        self._thread.join()
        for worker in self._slots:
            worker.__exit__(kind, error, trace)
        for worker in self.ended:
            worker.__exit__(None, None, None)

    @property
    def workers(self) -> list[Worker]:
        """Those that run now, or have ended a moment ago."""
        with self._lock:
            return list(self._slots)

    def wait_until_all_consume(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        """Return once each has got so far as to receive messages."""
        wait_until(
            lambda: all("Consuming" in worker.log() and worker.runs() for worker in self.workers),
            "all workers to consume",
            limit_seconds,
        )

    def kill_all(self) -> None:
        """SIGKILL each at the same moment."""
        with self._lock:
            for worker in self._slots:
                worker.signal(signal.SIGKILL)
            for worker in self._slots:
                worker.process.wait()

    def stop(self) -> list[int]:
        """SIGTERM to each, and their exit codes; nothing is started any more."""
        self._retired.set()
        self._thread.join()
        for worker in self._slots:
            worker.process.terminate()
        return [worker.process.wait(LIMIT_SECONDS) for worker in self._slots]

    def _tend(self) -> None:
        while not self._retired.wait(LOOK_SECONDS):
            with self._lock:
                for slot, worker in enumerate(self._slots):
                    if not worker.runs():
                        self.ended.append(worker)
                        self._slots[slot] = self._start()

    def _start(self) -> Worker:
        return Worker(self._environment, *self._arguments)
