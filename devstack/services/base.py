"""What a service is: how it is prepared, started, found in the process table, and asked whether it answers.

`check` speaks the service's own protocol with the stack's own password: an open port proves nothing.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import psutil

from devstack import processes
from devstack.ports import HOST

Say = Callable[[str], None]
CHECK_TIMEOUT_SECONDS = 2


class Service(ABC):
    """One server with a folder, a port and a password; it keeps no state in memory."""

    name: ClassVar[str]
    title: ClassVar[str]
    program: ClassVar[str]
    jars: ClassVar[str | None] = None
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_limit_seconds: ClassVar[float] = 90.0

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self.password = password

    @property
    def data(self) -> Path:
        """The folder with everything that outlives a restart."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / "server.log"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    @abstractmethod
    def marker(self) -> str:
        """The argument by which the server's command line is known to be this stack's."""

    @abstractmethod
    def prepare(self, say: Say) -> None:
        """Write what the server needs before it starts; does no harm when repeated, or after a crash."""

    @abstractmethod
    def launch(self) -> None:
        """Start the process, without waiting."""

    @abstractmethod
    def check(self) -> None:
        """Ask for an answer; any exception means that there is none."""

    def main_process(self) -> psutil.Process | None:
        """The server's process, the parent if there are several."""
        return processes.find(self.program, self.marker)

    def all_processes(self) -> list[psutil.Process]:
        """Everything to be ended or paused with it."""
        main = self.main_process()
        return processes.family(main) if main else []

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            self.check()
        except Exception:  # noqa: BLE001  each driver has its own errors, and all of them mean no
            return False
        return True
