"""The commands around the servers: what they print where, their exit codes, and the set-up of .venv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.__main__ import _quote, main
from devstack.errors import DevstackError
from devstack.stack import Stack
from devstack.status import ServiceStatus, table

ROOT = Path(__file__).resolve().parents[2]


def test_env_of_a_stack_that_is_down_prints_nothing_to_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "never-made", "env"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the stack 'never-made' is not up" in printed.err


def test_status_of_a_stack_that_is_down_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "never-made", "status"]) == 1
    assert capsys.readouterr().out.count(" down ") == 4
    assert not (ROOT / ".devstack" / "never-made").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x"])
def test_a_name_cannot_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(DevstackError, match="name is made of"):
        Stack(name)


@pytest.mark.parametrize("value", ["plain", "it's", 'a b $HOME `id` \\ "', "'", ""])
def test_a_quoted_value_means_itself_to_a_shell(value: str) -> None:
    script = f'export NAME={_quote(value)}; printf %s "$NAME"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == value


def test_the_table_lines_up() -> None:
    rows = [
        ServiceStatus("a", "A", "up", "127.0.0.1:20000", 7, Path("/data/a")),
        ServiceStatus("long", "A long one", "not answering", "-", None, Path("/data/b")),
    ]
    lines = table(rows).splitlines()
    assert len({line.index(end) for line, end in zip(lines, ["data", "/data", "/data"], strict=True)}) == 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing to install, its path no friend of careless quoting."""
    root = tmp_path / "a checkout's folder"
    (root / "devstack").mkdir(parents=True)
    for name in ("requirements.txt", "requirements-api.txt", "requirements-dev.txt", "devstack/requirements.txt"):
        (root / name).touch()
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", root)
    return root


def setup(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable} | env
    return subprocess.run(
        ["sh", str(checkout / "scripts" / "setup.sh")], env=environment, capture_output=True, text=True, check=False
    )


def test_setup_makes_a_venv_once_and_again_when_it_was_cut_short(checkout: Path) -> None:
    first = setup(checkout)
    assert first.returncode == 0, first.stderr
    assert (checkout / ".venv" / "bin" / "python").exists()
    assert setup(checkout).stdout == ""

    (checkout / "requirements.txt").write_text("# changed\n")
    changed = setup(checkout).stdout
    assert "installing" in changed
    assert "making .venv" not in changed

    (checkout / ".venv" / "made-from").unlink()
    assert "making .venv" in setup(checkout).stdout
    assert not (checkout / ".devstack" / "setup-lock").exists()


def test_setup_says_what_to_do_when_the_python_does_not_suit(checkout: Path) -> None:
    refused = setup(checkout, PYTHON="/bin/false")
    assert refused.returncode != 0
    assert "is not a Python from 3.12" in refused.stderr


def test_setup_says_where_to_get_a_python_when_there_is_none(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "cksum", "dirname", "mkdir", "rm", "head", "sleep"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    bare = {"PATH": str(tools), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path), "PYTHON": ""}
    refused = setup(checkout, **bare)
    if refused.returncode == 0:
        pytest.skip("this machine has a Python where no PATH leads")
    assert "make setup PYTHON=" in refused.stderr
    assert not (checkout / ".devstack" / "setup-lock").exists()


def test_make_without_a_target_lists_them(checkout: Path) -> None:
    listed = subprocess.check_output(["make", "-s", "-C", str(checkout)], text=True)
    for target in (
        "setup",
        "demo",
        "test",
        "check",
        "up",
        "down",
        "status",
        "env",
        "chaos",
        "guards",
        "bench",
        "audit",
        "clean",
    ):
        assert f"make {target} " in listed
    assert not (checkout / ".venv").exists()
