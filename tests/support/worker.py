"""The real worker as a process, for acceptance tests: started, watched, signalled, killed; its log is kept."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.005, 0.05
"""Between two looks: many a look is a request to a service that does the work which is waited for."""


class Worker:
    """``python -m app.main`` in `environment`; killed at the end of its `with` block if it still runs."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        self._log = tempfile.NamedTemporaryFile(prefix="worker-", suffix=".log")  # noqa: SIM115  (lives as long as self)
        self.process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "app.main"))],
            cwd=ROOT,
            env=dict(environment),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        if error is not None:
            error.add_note(f"the worker's log:\n{self.log()[-6_000:]}")
        self._log.close()

    def log(self) -> str:
        """All that it has said."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, limit_seconds: float = LIMIT_SECONDS) -> None:
        """Return once its log holds `text`."""
        wait_until(lambda: text in self.log(), f"the log to hold {text!r}", limit_seconds)

    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, limit_seconds: float = LIMIT_SECONDS) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(limit_seconds)


def wait_until(condition: Callable[[], object], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Return once `condition()` is true; fail, naming `what`, when it is not within the limit."""
    deadline = time.monotonic() + limit_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_seconds:.0f} s in vain for {what}")
        time.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, LONGEST_PAUSE_SECONDS)
