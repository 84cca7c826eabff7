"""How a command of ``python -m app.jobs`` is run in a test."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.services import ROOT


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


type Command = Callable[..., Ran]


def start(environment: dict[str, str], *arguments: str, out: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "app.jobs", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
    )


def at_a_terminal(environment: dict[str, str], *arguments: str, expected: int = 0) -> str:
    """What the command writes to a terminal of 80 columns."""
    master, terminal = pty.openpty()
    process = start({**environment, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}, *arguments, out=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65_536)
        except OSError:
            break
    assert process.wait(30) == expected
    os.close(master)
    return shown.decode().replace("\r\n", "\n")
