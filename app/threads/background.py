"""Work in the background, whose result no caller waits for.

Invariant: at most one piece of it runs beside its caller; whoever comes with another meanwhile does that one himself or
leaves it, so that no queue grows in memory behind a slow service. An exception of the work never reaches the caller.
"""

import logging
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread

log = logging.getLogger(__name__)

type Work = Callable[[], None]
type Start = Callable[[Work], None]
"""Runs what it is given beside its caller; RuntimeError when it can't."""


def _start_thread(name: str, work: Work) -> None:
    Thread(target=work, name=name, daemon=True).start()


class Background:
    """Runs a function in the background, on a thread that doesn't keep the process alive; or within the call."""

    def __init__(self, name: str, start: Start | None = None) -> None:
        """`name`: of the thread, and of the work in the log when it fails. `start` None: in a thread of its own."""
        self._name = name
        self._start = start or partial(_start_thread, name)
        self._busy = Lock()

    def __call__(self, work: Work) -> None:
        """Do `work`, now or in the background; what it raises is logged."""
        if not self.begin(work):
            self._do(work)

    def begin(self, work: Work) -> bool:
        """Have `work` done beside the caller; False when something else is under way, or there is no thread to give."""
        if not self._busy.acquire(blocking=False):
            return False
        try:
            self._start(partial(self._run, work))
        except RuntimeError:
            self._busy.release()
            return False
        return True

    def _run(self, work: Work) -> None:
        try:
            self._do(work)
        finally:
            self._busy.release()

    def _do(self, work: Work) -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed", self._name)
