"""`python purge_sqs.py` on a real queue, with and without a person at the terminal."""

import os
import pty
import select
import signal
import subprocess
import sys

import pytest

import purge_sqs
from app.errors import TransientError
from app.sqs.queue import Outgoing, Queue
from tests.support.services import ROOT, Queues

MESSAGES = 3


@pytest.fixture
def filled(queues: Queues) -> Queue:
    """A queue that holds messages, one of them in a worker's hands."""
    assert queues.segments.send([Outgoing(str(at)) for at in range(MESSAGES)]) == {}
    assert len(queues.segments.receive(1, 1, 600)) == 1
    return queues.segments


def purge(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    return subprocess.run(
        [sys.executable, "purge_sqs.py", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


CTRL_C = b"\x03"
CTRL_D = b"\x04"
AGAIN_SECONDS = 3.0


def purge_at_a_terminal(environment: dict[str, str], answer: bytes) -> tuple[int, str]:
    """Types `answer` once it is asked for; exit code, and all that was shown."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "purge_sqs.py"], cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    asked = False
    while True:
        if asked and answer == CTRL_C and not select.select([master], [], [], AGAIN_SECONDS)[0]:
            # Python does not notice a signal that comes between its question and its read; a person types it again.
            process.send_signal(signal.SIGINT)
            continue
        try:
            shown += os.read(master, 65_536)
        except OSError:
            break
        if b"[y/N]" in shown and not asked:
            asked = True
            if answer == CTRL_C:
                process.send_signal(signal.SIGINT)  # as the terminal of a login does
            else:
                os.write(master, answer)
    os.close(master)
    return process.wait(30), shown.decode()


def test_a_script_says_yes(environment: dict[str, str], filled: Queue) -> None:
    done = purge(environment, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Emptied the queue {filled.name}: it held about {MESSAGES} messages" in done.stdout
    assert filled.facts().messages == 0
    assert "it held no messages" in purge(environment, "--yes").stdout


def test_without_a_terminal_nothing_is_deleted_unless_told_so(environment: dict[str, str], filled: Queue) -> None:
    done = purge(environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert filled.name in done.stderr
    assert filled.facts().messages == MESSAGES


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, MESSAGES), (b"\n", 1, MESSAGES)])
def test_a_person_is_asked_first(
    environment: dict[str, str], filled: Queue, answer: bytes, code: int, left: int
) -> None:
    ended, shown = purge_at_a_terminal(environment, answer)
    assert ended == code, shown
    assert filled.name in shown
    assert f"about {MESSAGES} messages" in shown
    assert ("Nothing was deleted" in shown) == (left > 0)
    assert filled.facts().messages == left


@pytest.mark.parametrize("answer", [CTRL_C, CTRL_D])
def test_ctrl_c_and_ctrl_d_delete_nothing(environment: dict[str, str], filled: Queue, answer: bytes) -> None:
    ended, shown = purge_at_a_terminal(environment, answer)
    assert ended == 130, shown
    assert "Traceback" not in shown
    assert filled.facts().messages == MESSAGES


def test_another_queue_can_be_named(environment: dict[str, str], queues: Queues, filled: Queue) -> None:
    assert queues.completed.send([Outgoing("kept?")]) == {}
    del environment["SQS_QUEUE_URL"]
    done = purge(environment, "--yes", "--queue", queues.completed.url)
    assert done.returncode == 0, done.stderr
    assert "it held about 1 message (" in done.stdout
    assert (filled.facts().messages, queues.completed.facts().messages) == (MESSAGES, 0)


def test_what_cannot_be_purged_is_told(environment: dict[str, str], filled: Queue) -> None:
    missing = purge(environment, "--yes", "--queue", f"{filled.url}-missing")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"the queue '{filled.name}-missing' does not exist" in missing.stderr
    wrong = purge(environment, "--yes", "--queue", filled.name)
    assert wrong.returncode == 2
    assert "must be the URL of a queue" in wrong.stderr
    dead = purge({**environment, "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"}, "--yes")
    assert dead.returncode == 1
    assert dead.stderr.startswith("SQS does not answer")
    del environment["SQS_QUEUE_URL"]
    unset = purge(environment, "--yes")
    assert unset.returncode == 2
    assert "SQS_QUEUE_URL is not set" in unset.stderr
    for done in (missing, wrong, dead, unset):
        assert "Traceback" not in done.stderr
    assert filled.facts().messages == MESSAGES


def test_the_rule_of_one_purge_a_minute_is_explained(
    environment: dict[str, str], filled: Queue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The local server does not enforce it; AWS answers 403 with this code, and the error names it."""

    def refuse(queue: Queue) -> None:
        raise TransientError(
            f"SQS refuses a call on the queue {queue.name!r} (AWS.SimpleQueueService.PurgeQueueInProgress): Only one"
            " PurgeQueue operation on it is allowed every 60 seconds."
        )

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Queue, "purge", refuse)
    assert purge_sqs.main(["--yes"]) == 1
    said = capsys.readouterr()
    assert "one purge of a queue in 60 s" in said.err
    assert said.out == ""
