"""PostgreSQL refuses to run as root; then it runs as `nobody`, which every system has, and sees only what it must.

Nothing is changed unless a trial shows that it is needed, and then only the right to pass through folders on
the way (never to list or read them) and to read the server's own program files.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devstack.services.base import Say

ACCOUNT = "nobody"
PASS, READ = 0o001, 0o004


def server_account() -> str | None:
    """The account for a server that must not run as root; None when this is an ordinary user already."""
    return ACCOUNT if os.geteuid() == 0 else None


def give_to(account: str | None, *paths: Path) -> None:
    """Make `account` the owner."""
    for path in paths:
        if account:
            shutil.chown(path, user=account)


def open_to(account: str, folders: Sequence[Path], programs: Sequence[Path], say: Say) -> None:
    """Let `account` reach the folders and run what is in the programs' folders."""
    for target in [*folders, *(each for each in programs if each.exists())]:
        if not _can_enter(account, target):
            _open_way(target, say)
    for program in programs:
        if program.exists() and not _can_read_all(account, program):
            _open_files(program)


def _can_enter(account: str, folder: Path) -> bool:
    return _succeeds_as(account, 'cd "$1"', folder)


def _can_read_all(account: str, folder: Path) -> bool:
    return _succeeds_as(account, 'test -z "$(find "$1" ! -type l ! -readable -print -quit 2>&1)"', folder)


def _succeeds_as(account: str, script: str, argument: Path) -> bool:
    command = ["/bin/sh", "-c", script, "sh", str(argument)]
    return subprocess.run(command, user=account, cwd="/", capture_output=True, check=False).returncode == 0


def _open_way(target: Path, say: Say) -> None:
    for folder in [target, *target.parents]:
        mode = folder.stat().st_mode
        if not mode & PASS:
            say(f"letting the account '{ACCOUNT}' pass through {folder}: PostgreSQL does not run as root")
            folder.chmod(mode | PASS)


def _open_files(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(path.stat().st_mode | READ | (PASS if runnable else 0))
