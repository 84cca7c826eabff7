"""``make demo``, on the tests' own stack: what a newcomer sees first."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import httpx
import psutil
import pytest

from devstack.families import SMALL_FAMILY_PATH, Family
from devstack.stack import Stack
from tests.support.services import ROOT, base_environment

LIMIT_SECONDS = 250
FAMILY = Family.from_json(SMALL_FAMILY_PATH)


@pytest.fixture
def start(stack: Stack, load_graph: Callable[[Family], None]) -> Callable[..., subprocess.Popen[str]]:
    """Starts the demo, in a graph that holds nothing else."""
    load_graph(Family((), (), (), (), ()))

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.demo", "--stack", stack.name, *arguments],
            cwd=ROOT,
            env={**base_environment(), "COLUMNS": "80", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def workers_of(stack: Stack) -> list[int]:
    """Workers that read from this stack's queue."""
    url = stack.env()["SQS_QUEUE_URL"]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[1:] == ["-m", "app.main"]:
            try:
                if process.environ().get("SQS_QUEUE_URL") == url:
                    found.append(process.pid)
            except psutil.Error:
                continue
    return found


def test_it_shows_the_whole_road_of_a_job_and_does_so_again(
    stack: Stack, start: Callable[..., subprocess.Popen[str]]
) -> None:
    for _ in range(2):
        process = start()
        out, err = process.communicate(timeout=LIMIT_SECONDS)
        assert (process.returncode, err) == (0, ""), out
        assert re.findall(r"^(\d)/7 ", out, re.MULTILINE) == list("1234567")
        job_id = re.search(r"job ([0-9a-f-]{36}): 4 segments", out)
        assert job_id is not None
        assert "COMPLETED: 4 of 4 segments completed, 0 failed" in out
        assert f'{{"job_id": "{job_id[1]}", "manifestation_id": "root-bo"}}' in out
        assert re.search(r"^root-bo.segmentation.0 translation-en +translation-en.segmentation.0 \[0, 60\)", out, re.M)
        assert "make down" in out
        assert "The page: make demo ARGS=--serve serves it, at http://127.0.0.1:8000/" in out
        assert all(len(line) <= 80 for line in out.splitlines() if '{"job_id"' not in line and "make" not in line)
        assert workers_of(stack) == []


def test_it_serves_the_page_until_it_is_interrupted(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--serve")
    assert process.stdout is not None
    addresses = []
    for line in process.stdout:
        if line.startswith(("The page: ", "The map: ")):
            addresses.append(line.split()[-1])
        if line.startswith("Ctrl-C"):
            break
    jobs, relations = addresses
    assert "COMPLETED" in httpx.get(jobs).text
    assert "commentary-en" in httpx.get(relations).text
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, err) == (0, "")
    with pytest.raises(httpx.TransportError):
        httpx.get(jobs)


def test_a_worker_that_cannot_start_is_told_in_words(stack: Stack, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(LOG_FORMAT="nonsense")
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, err) == (1, "")
    assert "The demo stopped: the worker ended with code 2 before the job did." in out
    assert "LOG_FORMAT" in out
    assert workers_of(stack) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_no_worker(
    stack: Stack, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = start()
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("5/7"):
            break
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, err) == (130, "")
    assert "Interrupted" in out
    assert workers_of(stack) == []
