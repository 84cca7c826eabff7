"""What README.md tells a newcomer to paste into a shell, pasted into one, on the tests' own stack."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack import Stack
from devstack.families import SMALL_FAMILY_PATH, Family
from tests.support.services import ROOT, base_environment

LIMIT_SECONDS = 250
FAMILY = Family.from_json(SMALL_FAMILY_PATH)
MAKE = """#!/bin/sh
exec "$REAL_MAKE" -o setup "$@"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The checkout as a newcomer has it once `.venv` is made: with this interpreter's, wherever that is."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name not in (".venv", ".devstack", ".env", ".git"):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".devstack").mkdir()
    return folder


@pytest.fixture
def environment(stack: Stack, tmp_path: Path) -> dict[str, str]:
    """`make` works on the tests' stack and leaves `.venv` as it is."""
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "make").write_text(MAKE)
    (shims / "make").chmod(0o755)
    made = base_environment()
    real = subprocess.check_output(["sh", "-c", "command -v make"], env=made, text=True).strip()
    path = os.pathsep.join((str(shims), made["PATH"]))
    return {**made, "PATH": path, "REAL_MAKE": real, "STACK": stack.name, "SQS_WAIT_TIME_SECONDS": "1"}


def block(heading: str) -> str:
    """The first block of shell commands below a heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}$.*?^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_block_for_working_by_hand_works_as_it_stands(
    environment: dict[str, str], clone: Path, load_graph: Callable[[Family], None]
) -> None:
    load_graph(Family((), (), (), (), ()))
    pasted = block("Working on it by hand")
    assert "#" not in pasted, "an interactive zsh takes no comments"
    done = subprocess.run(
        ["bash"],
        input=pasted + "\nexit $?\n",
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    log = clone / ".devstack" / "worker.log"
    assert done.returncode == 0, (done.stdout, done.stderr, log.read_text() if log.exists() else "")
    shown = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert sorted(row["segment_id"] for row in shown) == sorted(row.id for row in FAMILY.job_segments("root-bo"))
    assert {row["status"] for row in shown} == {"COMPLETED"}
    assert "COMPLETED 4 completed, 0 failed, 0 to do of 4" in done.stdout
