"""Only what carries the stack's own folder in its command line is found, and therefore only that can be ended."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devstack import processes
from devstack.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose servers are ended after the test."""
    (tmp_path / "marker").touch()
    yield tmp_path
    left = [main for main in [processes.find("tail", str(tmp_path / "marker"))] if main]
    processes.send(left, signal.SIGKILL)
    processes.wait_gone(left)


def serve(folder: Path) -> psutil.Process:
    """A server that does nothing until it is ended."""
    processes.spawn(["tail", "-f", str(folder / "marker")], folder=folder, log=folder / "log")
    found = processes.find("tail", str(folder / "marker"))
    assert found is not None
    return found


def test_a_process_is_found_by_program_and_marker_together(folder: Path) -> None:
    server = serve(folder)
    assert processes.find("tail", str(folder / "marker")) == server
    assert processes.find("tail", str(folder)) is None
    assert processes.find("java", str(folder / "marker")) is None


def test_it_outlives_the_command_that_started_it(folder: Path) -> None:
    marker = str(folder / "marker")
    script = (
        "import sys; from pathlib import Path; from devstack import processes;"
        "processes.spawn(['tail', '-f', sys.argv[1]], folder=Path(sys.argv[2]), log=Path(sys.argv[2]) / 'log')"
    )
    subprocess.run([sys.executable, "-c", script, marker, str(folder)], check=True)
    server = processes.find("tail", marker)
    assert server is not None
    assert server.pid != psutil.Process().pid
    assert server.terminal() is None


def test_a_child_that_shows_no_command_line_yet_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment in which the program takes the process over, which may last on busy processors."""
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _self: [])
    assert serve(folder).is_running()


def test_an_ended_child_is_gone_and_leaves_no_zombie(folder: Path) -> None:
    server = serve(folder)
    processes.send([server], signal.SIGKILL)
    assert processes.wait_gone([server])
    assert processes.find("tail", str(folder / "marker")) is None
    assert not psutil.pid_exists(server.pid)


def test_waiting_for_the_end_of_what_goes_on_has_a_limit(folder: Path) -> None:
    assert not processes.wait_gone([serve(folder)], limit_seconds=0.2)


def test_a_paused_process_is_alive(folder: Path) -> None:
    server = serve(folder)
    processes.send([server], signal.SIGSTOP)
    assert wait_until(lambda: processes.is_paused(server), 5)
    assert processes.is_alive(server)
    processes.send([server], signal.SIGCONT)
    assert wait_until(lambda: not processes.is_paused(server), 5)


def test_a_family_has_the_children_of_the_children(folder: Path) -> None:
    nested = f"sh -c 'tail -f {folder / 'marker'}; true'; true"
    outer = subprocess.Popen(["sh", "-c", nested])
    main = psutil.Process(outer.pid)
    assert wait_until(lambda: len(processes.family(main)) == 3, 5)
    processes.send(processes.family(main), signal.SIGKILL)
    outer.wait()


def test_a_signal_to_what_has_ended_is_no_error(folder: Path) -> None:
    server = serve(folder)
    server.kill()
    assert processes.wait_gone([server])
    processes.send([server], signal.SIGKILL)
