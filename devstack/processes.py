"""A process is ours only if its command line says so: the program, and an argument with the stack's own folder.

The process table is asked every time and no pid is kept, so a reused pid can never be taken for a service, and
a service whose starter died before writing anything down is found all the same. Children of this very process are known
by what they were started with: the table shows no command line in the moment in which a program takes a process over.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import psutil

from devstack.waiting import wait_until

KILL_LIMIT_SECONDS = 10.0


class _Detached(subprocess.Popen[bytes]):
    """A child that is meant to outlive this process, so leaving it running is no mistake to warn about."""

    command: Sequence[str]

    def __del__(self, *_: object) -> None:
        return


_children: dict[int, _Detached] = {}
_found: dict[tuple[str, str], psutil.Process] = {}  # where to look first: a table of 500 processes takes a while


class Identity(TypedDict, total=False):
    """The account that a process runs as, in subprocess's words; empty means this one's."""

    user: int
    group: int
    extra_groups: list[int]


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    identity: Identity | None = None,
) -> None:
    """Start a server in a session of its own, so that Ctrl-C or the end of this command does not reach it."""
    with log.open("ab") as output:
        child = _Detached(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **(identity or {}),
        )
    child.command = command
    _children[child.pid] = child


def find(program: str, marker: str) -> psutil.Process | None:
    """The live process of `program` with the argument `marker`; a parent rather than the copies it forked."""
    _reap()
    for child in list(_children.values()):
        with contextlib.suppress(psutil.Error):
            if _is(child.command, program, marker) and is_alive(process := psutil.Process(child.pid)):
                return process
    known = _found.get((program, marker))
    if known and _matches(known, program, marker):
        return known
    matches = [process for process in psutil.process_iter() if _matches(process, program, marker)]
    pids = {process.pid for process in matches}
    for process in matches:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in pids:
                _found[program, marker] = process
                return process
    return None


def family(main: psutil.Process) -> list[psutil.Process]:
    """A process and everything that it started."""
    with contextlib.suppress(psutil.Error):
        return [main, *main.children(recursive=True)]
    return [main]


def working_in(folder: Path, program: str) -> list[psutil.Process]:
    """Processes named `program` whose working folder is `folder`: children that outlived a killed parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith(program) and Path(process.cwd()) == folder and is_alive(process):
                found.append(process)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether anything of it is left that holds files and ports.

    A killed server with many threads is a zombie from the moment that its first thread ends, and closes its port
    only with its last.
    """
    try:
        if not process.is_running():
            return False
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.Error:
        return False


def is_paused(process: psutil.Process) -> bool:
    """Whether it was stopped by SIGSTOP."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each that still is the process it was when found."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_gone(processes: Sequence[psutil.Process], limit_seconds: float = KILL_LIMIT_SECONDS) -> bool:
    """Whether all of them ended within the limit."""

    def gone() -> bool:
        _reap()
        return not any(is_alive(process) for process in processes)

    return wait_until(gone, limit_seconds)


def _matches(process: psutil.Process, program: str, marker: str) -> bool:
    try:
        return _is(process.cmdline(), program, marker) and is_alive(process)
    except (psutil.Error, OSError):
        return False


def _is(command: Sequence[str], program: str, marker: str) -> bool:
    return bool(command) and os.path.basename(command[0]) == program and marker in command


def _reap() -> None:
    """Collect children that ended, lest they stay in the process table as zombies of a long test run."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]
