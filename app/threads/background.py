"""Work in the background, whose result no caller waits for.

Invariant: at most one piece of it runs beside its caller; whoever comes with another meanwhile does that one himself,
so that no queue grows in memory behind a slow service. An exception of the work never reaches the caller.
"""

import logging
from collections.abc import Callable
from threading import Lock, Thread

log = logging.getLogger(__name__)


class Background:
    """Runs a function in the background, on a thread that doesn't keep the process alive; or within the call."""

    def __init__(self, name: str) -> None:
        """`name`: of the thread, and of the work in the log when it fails."""
        self._name = name
        self._busy = Lock()

    def __call__(self, work: Callable[[], None]) -> None:
        """Do `work`, now or in the background; what it raises is logged."""
        if not self._busy.acquire(blocking=False):
            self._do(work)
            return
        try:
            Thread(target=self._run, args=(work,), name=self._name, daemon=True).start()
        except RuntimeError:  # the system has no thread to give
            self._run(work)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            self._do(work)
        finally:
            self._busy.release()

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed", self._name)
