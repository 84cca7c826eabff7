"""When each watched thread last came further, so that one that hangs or died unseen is found.

Invariant: a watched thread stays watched, whatever becomes of it: one that has ended marks nothing more, and is found
like one that hangs. Marking takes no lock: it may stand in the midst of the work.
"""

import time
from collections.abc import Callable
from threading import Thread, current_thread

from app.threads.stopping import Stop


class Progress:
    """Safe to share between threads. Told by the thread itself: an ident is given again to a later one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[Thread, float] = {}

    def watch(self, thread: Thread) -> None:
        """Expect marks of `thread` from now on."""
        self._marks[thread] = self._clock()

    def mark(self) -> None:
        """The calling thread came further; nothing when it is not watched."""
        thread = current_thread()
        if thread in self._marks:
            self._marks[thread] = self._clock()

    def slowest(self) -> tuple[str, float]:
        """The name of the thread that has stood still longest, and for how many seconds."""
        thread, since = min(list(self._marks.items()), key=lambda mark: mark[1])
        return thread.name, self._clock() - since

    def stalled(self, limit_seconds: float) -> list[Thread]:
        """Those that have stood still for longer than that."""
        oldest = self._clock() - limit_seconds
        return [thread for thread, since in list(self._marks.items()) if since < oldest]


class MarkingStop(Stop):
    """`stop` for a watched thread: whoever asks whether to stop has come round, and waiting in small steps asks."""

    def __init__(self, stop: Stop, progress: Progress) -> None:
        super().__init__()
        self._stop = stop
        self._progress = progress

    def set(self) -> None:
        """End all that `stop` ends."""
        self._stop.set()

    def is_set(self) -> bool:
        """Whether the end has been asked for."""
        self._progress.mark()
        return self._stop.is_set()
