"""A contestant as a process: started, awaited, paused, stopped, and asked what it has used.

Invariant: every contestant is started the same way, and none outlives its `with` block.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import psutil

from bench.ground import BenchError

type Kind = Literal["worker", "naive", "floor"]

MODULES: Mapping[Kind, str] = {"worker": "app.main", "naive": "bench.naive", "floor": "bench.floor"}
READY: Mapping[Kind, str] = {"worker": "Consuming ", "naive": '"ready"', "floor": '"ready"'}
READY_LIMIT_SECONDS = 90.0
STOP_LIMIT_SECONDS = 40.0
LOG_TAIL_CHARACTERS = 3_000
BYTES_A_MEGABYTE = 1_000_000


class Usage(NamedTuple):
    """What a process has used since its start."""

    cpu_seconds: float
    peak_mb: float
    """The greatest resident set; on systems other than Linux the present one."""


class ContestantProcess:
    """One process of a contestant in `folder`, which holds its log."""

    def __init__(
        self,
        kind: Kind,
        environment: Mapping[str, str],
        folder: Path,
        number: int = 0,
        *,
        results: Path | None = None,
        observed: Path | None = None,
    ) -> None:
        """`results`: what a floor stores. `observed`: run it inside `bench.timed`, which leaves that file."""
        self._kind = kind
        self.log_path = folder / f"{kind}-{number}.log"
        command = ["-m", MODULES[kind]] if observed is None else ["-m", "bench.timed", kind, str(observed)]
        if kind == "floor":
            command += ["--results", str(results)]
        self.started_at = time.time()
        with self.log_path.open("wb") as log:
            # Not in the checkout, where a .env might stand; PYTHONPATH leads to it.
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the harness, which then stops it
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Return when it says that it is about to poll."""
        deadline = time.monotonic() + READY_LIMIT_SECONDS
        while READY[self._kind] not in self.log_path.read_text(encoding="utf-8", errors="replace"):
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self._kind} is not ready after {READY_LIMIT_SECONDS:.0f} s.{self.log_tail()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise when it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise BenchError(f"{self._kind} has ended with code {code}.{self.log_tail()}")

    def pause(self) -> None:
        """It does nothing from here on."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self._process.send_signal(signal.SIGCONT)

    def usage(self) -> Usage:
        """What it has used so far; it must be running."""
        process = psutil.Process(self.pid)
        times = process.cpu_times()
        return Usage(times.user + times.system, _peak_bytes(process) / BYTES_A_MEGABYTE)

    def stop(self) -> None:
        """SIGTERM; raises when it does not end well."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._kind} does not stop.{self.log_tail()}") from None
        if code:
            raise BenchError(f"{self._kind} ended with code {code} after SIGTERM.{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it has said, to be put behind a message."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return f"\nIts log ends with:\n{text[-LOG_TAIL_CHARACTERS:]}"


def _peak_bytes(process: psutil.Process) -> int:
    """The kernel's own high-water mark. `ru_maxrss` would not do: it starts from the parent's."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return int(process.memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def wait_for(
    condition: Callable[[], bool], processes: Sequence[ContestantProcess], limit_seconds: float, what: str
) -> None:
    """Return when `condition()` holds; raise when a process ends before, or when the time is up."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            raise BenchError(f"waited {limit_seconds:.0f} s in vain for {what}.{processes[0].log_tail()}")
        time.sleep(0.05)
