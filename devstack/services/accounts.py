"""PostgreSQL refuses to run as root; then it runs as `nobody`, which every system has, and sees only what it must.

Nothing is changed unless a trial shows that it is needed, and then only the right to pass through folders on
the way (never to list or read them) and to read the server's own program files.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devstack.processes import Identity
from devstack.services.base import Say

ACCOUNT = "nobody"
PASS, READ = 0o001, 0o004


def server_identity() -> Identity:
    """Who a server that refuses root is run as: nobody instead of root, and any other user as itself (empty)."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give_to(identity: Identity, *paths: Path) -> None:
    """Make it the owner."""
    for path in paths:
        if identity:
            os.chown(path, identity["user"], identity["group"])


def open_to(identity: Identity, folders: Sequence[Path], programs: Sequence[Path], say: Say) -> None:
    """Let it reach the folders and run what is in the programs' folders."""
    for target in [*folders, *(each for each in programs if each.exists())]:
        if not _can_enter(identity, target):
            _open_way(target, say)
    for program in programs:
        if program.exists() and not _can_read_all(identity, program):
            _open_files(program)


def _can_enter(identity: Identity, folder: Path) -> bool:
    return _succeeds_as(identity, 'cd "$1"', folder)


def _can_read_all(identity: Identity, folder: Path) -> bool:
    return _succeeds_as(identity, 'test -z "$(find "$1" ! -type l ! -readable -print -quit 2>&1)"', folder)


def _succeeds_as(identity: Identity, script: str, argument: Path) -> bool:
    command = ["/bin/sh", "-c", script, "sh", str(argument)]
    return subprocess.run(command, cwd="/", capture_output=True, check=False, **identity).returncode == 0


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
