"""One flag that ends everything.

Invariant: setting it takes no lock, so that a signal handler may do so whatever its thread was doing;
`threading.Event` can deadlock there.
"""

import time
from typing import Final

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
        while not self._is_set:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, STEP_SECONDS))
        return self._is_set
