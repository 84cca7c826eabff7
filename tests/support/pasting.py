"""Blocks of shell commands from a document, pasted into a shell in a checkout, on the tests' own stack."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from devstack.stack import Stack
from tests.support.services import ROOT, base_environment

LIMIT_SECONDS: Final = 250
NOT_IN_A_CLONE: Final = (".venv", ".devstack", ".env", ".git")
MAKE: Final = """#!/bin/sh
case "$1" in down) exit;; esac
exec "$REAL_MAKE" -o setup "$@"
"""
"""Leaves `.venv` as it is, and the tests' stack running."""


def clone(folder: Path) -> Path:
    """The checkout as a newcomer has it once `.venv` is made: with this interpreter's, wherever that is."""
    made = folder / "clone"
    made.mkdir()
    for path in ROOT.iterdir():
        if path.name not in NOT_IN_A_CLONE:
            (made / path.name).symlink_to(path)
    (made / ".venv").symlink_to(sys.prefix)
    (made / ".devstack").mkdir()
    return made


def environment_of(stack: Stack, folder: Path) -> dict[str, str]:
    """A newcomer's environment, in which `make` works on the tests' stack; its `make` is put into `folder`."""
    shims = folder / "bin"
    shims.mkdir()
    (shims / "make").write_text(MAKE)
    (shims / "make").chmod(0o755)
    made = base_environment()
    real = subprocess.check_output(["sh", "-c", "command -v make"], env=made, text=True).strip()
    path = os.pathsep.join((str(shims), made["PATH"]))
    return {**made, "PATH": path, "REAL_MAKE": real, "STACK": stack.name, "SQS_WAIT_TIME_SECONDS": "1"}


def blocks(document: str, heading: str | None = None) -> list[str]:
    """The blocks of shell commands in a document of the checkout, of all of it or of the section with that heading."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if heading is not None:
        _, found, text = text.partition(f"\n## {heading}\n")
        assert found, heading
        text = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def paste(pasted: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> str:
    """What one shell prints that runs these blocks; each command's failure fails the test."""
    done = subprocess.run(
        ["bash", "-e"],
        input="".join([*pasted, "\nexit $?\n"]),
        cwd=cwd,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    log = cwd / ".devstack" / "worker.log"
    assert done.returncode == 0, (done.stdout, done.stderr, log.read_text() if log.exists() else "")
    return done.stdout
