"""The workers: N of them run at any time; what killed each is written down, and its log is kept.

Invariant: a worker that ends without having been told to is noticed, whatever its exit code.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.killer import LAST_WORDS
from tests.support.services import ROOT

LISTENING: Final = "Consuming"
EXIT_LIMIT_SECONDS: Final = 20.0


@dataclass(slots=True)
class Start:
    """One start of one worker."""

    process: subprocess.Popen[bytes]
    log: Path
    receives: Path
    began: float
    asked: list[tuple[float, str]] = field(default_factory=list)
    """What it was told, and when: SIGKILL, SIGTERM, SIGSTOP, SIGCONT."""
    ended: float | None = None
    has_listened: bool = False

    @property
    def listens(self) -> bool:
        """Whether it has got so far as to receive messages."""
        self.has_listened = self.has_listened or LISTENING in self.text()
        return self.has_listened

    def text(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def met_a_killer(self) -> bool:
        """Whether a segment of the load has ended it."""
        return LAST_WORDS in self.text()

    def was_told(self, name: str) -> bool:
        """Whether it got that signal."""
        return any(told == name for _, told in self.asked)

    def seconds_to_exit(self) -> float | None:
        """From SIGTERM to its end."""
        asked = [at for at, told in self.asked if told == "SIGTERM"]
        return self.ended - asked[0] if asked and self.ended else None


class Crew:
    """The slots, each with one worker. Safe to use from several threads."""

    def __init__(self, size: int, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.starts: list[Start] = []
        self._environment = environment
        self._lock = threading.RLock()
        self._slots: list[Start | None] = [None] * size
        self._retired = False

    def tend(self) -> None:
        """Start whatever does not run."""
        with self._lock:
            for slot, start in enumerate(self._slots):
                if start is not None and start.process.poll() is not None and start.ended is None:
                    start.ended = time.time()
                if not self._retired and (start is None or start.ended is not None):
                    self._slots[slot] = self._start(slot)

    def running(self) -> int:
        """How many processes there are."""
        with self._lock:
            return sum(start is not None and start.process.poll() is None for start in self._slots)

    def listens(self, slot: int) -> bool:
        """Whether the slot's worker receives messages."""
        with self._lock:
            start = self._slots[slot]
            return start is not None and start.listens

    def tell(self, slot: int, name: str) -> None:
        """Send a signal by its name."""
        with self._lock:
            start = self._slots[slot]
            if start is not None and start.process.poll() is None:
                start.asked.append((time.time(), name))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(start.process.pid, getattr(signal, name))

    def tell_all(self, name: str) -> None:
        """Send a signal to each."""
        for slot in range(len(self._slots)):
            self.tell(slot, name)

    def retire(self) -> None:
        """SIGTERM to all, and wait until they are gone."""
        self._retired = True
        self.tell_all("SIGTERM")
        deadline = time.monotonic() + EXIT_LIMIT_SECONDS
        while self.running() and time.monotonic() < deadline:
            self.tend()
            time.sleep(0.05)
        self.tend()

    def abandon(self) -> None:
        """SIGKILL to all."""
        self._retired = True
        with self._lock:
            for start in self.starts:
                if start.process.poll() is None:
                    start.process.kill()
                    start.process.wait()

    def _start(self, slot: int) -> Start:
        name = f"worker-{slot + 1}-{len(self.starts) + 1:03}"
        log, receives = self.folder / f"{name}.log", self.folder / f"{name}.receives"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", str(receives)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        start = Start(process, log, receives, time.time())
        self.starts.append(start)
        return start


def odd_ends(starts: list[Start]) -> list[str]:
    """Workers that ended otherwise than they were told to."""
    return [f"{start.log.name}: {what}" for start in starts if (what := _odd(start))]


def _odd(start: Start) -> str | None:
    code = start.process.poll()
    if code is None:
        return "does not end"
    terms = sum(told == "SIGTERM" for _, told in start.asked)
    right: set[int] = set()
    if start.was_told("SIGKILL") or start.met_a_killer:
        right |= {-signal.SIGKILL}
    if terms:
        right |= {0} if start.listens else {0, -signal.SIGTERM}
    if terms > 1:
        right |= {128 + signal.SIGTERM}
    return None if code in right else f"exit code {code}, told {[told for _, told in start.asked] or 'nothing'}"
