"""One flag that ends everything, and the signals that set it.

Invariant: setting it takes no lock, so that a signal handler may do so whatever its thread was doing;
`threading.Event` can deadlock there.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from app.logs import wait_until_written

STEP_SECONDS: Final = 0.05


class Stop:
    """Set once; waited for in small steps."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """End."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether the end has been asked for."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds` or until the flag is set; whether it is."""
        deadline = time.monotonic() + seconds
        while not self.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, STEP_SECONDS))
        return True


class Signals:
    """SIGTERM and SIGINT ask to stop; a second one exits once the log is written.

    Only in the main thread, where Python has them.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` is called by the first signal, in the main thread."""
        self._stop = stop
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            wait_until_written()
            os._exit(128 + number)
        self._asked = True
        self._stop()
