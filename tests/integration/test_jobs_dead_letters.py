"""`dead-letters list|redrive|drop` on real queues."""

import json
import os
import pty
import subprocess
import sys
import time
import uuid
from datetime import datetime

import pytest

from app.core.outcomes import Dead
from app.core.segments import Claimed
from app.core.unsent import UnsentSegment
from app.errors import OutageError
from app.outbox.messages import segment_message
from app.sqs.acknowledge import Acknowledger
from app.sqs.dead_letters import look
from app.sqs.delivery import read_delivery
from app.sqs.queue import Outgoing, Queue
from tests.support.commands import Command, at_a_terminal
from tests.support.engine import Engine
from tests.support.jobs import claim, claimed, fail, make_job, statuses
from tests.support.services import ROOT, Queues, receive_all

REASON = "manifestation 'x' does not exist\nin the graph"


def bury(queues: Queues, *bodies: str, reason: str = REASON) -> None:
    """As the worker does."""
    queues.segments.send([Outgoing(body) for body in bodies])
    deliveries = [read_delivery(m, time.monotonic()) for m in receive_all(queues.segments, len(bodies))]
    Acknowledger(queues.segments, queues.dead_letters, 10).act(deliveries, [Dead(reason, True)] * len(bodies))


def body(job_id: str, segment_id: str) -> str:
    return segment_message(UnsentSegment("", job_id, "m", segment_id, 0, 10))


def shown(command: Command) -> list[dict[str, object]]:
    ran = command("dead-letters", "list", "--json")
    assert (ran.code, ran.err) == (0, "")
    return [json.loads(line) for line in ran.out.splitlines()]


def test_list_tells_why_how_often_and_since_when(command: Command, queues: Queues) -> None:
    job_id = str(uuid.uuid4())
    bury(queues, body(job_id, "s\t1"))
    queues.dead_letters.send([Outgoing("not JSON")])
    for _ in range(2):  # looking changes nothing
        letters = {letter["segment_id"]: letter for letter in shown(command)}
        assert set(letters) == {"s\t1", None}
        mine, other = letters["s\t1"], letters[None]
        assert (mine["job_id"], mine["reason"]) == (job_id, REASON.replace("\n", "?"))
        assert mine["receives"] == 1
        assert (other["job_id"], other["reason"]) == (None, None)
        assert datetime.fromisoformat(str(mine["since"])).tzinfo is not None
    lines = command("dead-letters", "list").out.splitlines()
    assert lines[0].split("\t") == ["message_id", "segment_id", "job_id", "reason", "receives", "since"]
    assert sorted(line.split("\t")[1] for line in lines[1:]) == ["", r"s\t1"]


def test_list_is_for_people_at_a_terminal(environment: dict[str, str], queues: Queues) -> None:
    assert "There are no dead letters" in at_a_terminal(environment, "dead-letters", "list")
    bury(queues, body("550e8400-e29b-41d4-a716-446655440000", "s1"))
    out = at_a_terminal(environment, "dead-letters", "list")
    assert "segment s1 of job 550e8400-e29b-41d4-a716-446655440000\n" in out
    assert "received once" in out


def test_list_of_a_few_says_that_there_are_more(command: Command, queues: Queues) -> None:
    queues.dead_letters.send([Outgoing(str(at)) for at in range(12)])
    ran = command("dead-letters", "list", "--limit", "11")
    assert len(ran.out.splitlines()) == 12
    assert ran.err == f"Only 11 were asked for; about 12 are on the queue {queues.dead_letters.name}.\n"


def test_a_redriven_letter_revives_its_segment(command: Command, engine: Engine, queues: Queues) -> None:
    job_id = make_job(engine, 2)
    fail(engine, claimed(engine, job_id, ["s00000", "s00001"]))
    bury(queues, body(job_id, "s00000"), body(job_id, "s00001"))
    (wanted,) = [letter for letter in shown(command) if letter["segment_id"] == "s00001"]

    ran = command("dead-letters", "redrive", str(wanted["message_id"]))

    assert (ran.code, ran.out, ran.err) == (0, "1 dead letter redriven.\n", "")
    (message,) = receive_all(queues.segments, 1)
    delivery = read_delivery(message, time.monotonic())
    assert delivery.attributes == {}
    (answer,) = claim(engine, job_id, ["s00001"], sent_at_ms=delivery.first_sent_at_ms)
    assert isinstance(answer, Claimed)
    assert statuses(engine, job_id) == {"FAILED": 1, "IN_PROGRESS": 1}
    assert [letter["segment_id"] for letter in shown(command)] == ["s00000"]


def test_all_are_redriven_but_what_no_worker_can_read(command: Command, queues: Queues) -> None:
    bury(queues, *(body(str(uuid.uuid4()), f"s{at}") for at in range(23)), "{}")
    ran = command("dead-letters", "redrive", "--all", "--yes")
    (left,) = shown(command)
    assert (ran.code, ran.out) == (1, "23 dead letters redriven.\n")
    assert ran.err.startswith(f"  not redriven: {left['message_id']}: no worker can read it: job_id: ")
    assert len({json.loads(str(m["Body"]))["segment_id"] for m in receive_all(queues.segments, 23)}) == 23
    ran = command("dead-letters", "drop", "--all", "--yes")
    assert (ran.code, ran.out, shown(command)) == (0, "1 dead letter dropped.\n", [])


def test_dropped_by_id_or_said_to_be_unknown(command: Command, queues: Queues) -> None:
    queues.dead_letters.send([Outgoing("a"), Outgoing("b")])
    one, other = (str(letter["message_id"]) for letter in shown(command))
    ran = command("dead-letters", "drop", one, "no-such-id")
    assert (ran.code, ran.out) == (1, "1 dead letter dropped.\n")
    assert ran.err == "  not dropped: no-such-id: there is no such message, or somebody else has it in hand\n"
    assert [letter["message_id"] for letter in shown(command)] == [other]


def test_what_is_lost_in_the_middle_is_still_there(
    command: Command, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(queues, body(str(uuid.uuid4()), "s1"))

    def lose(*_: object) -> None:
        raise OutageError("SQS", "gone")

    with monkeypatch.context() as broken:
        broken.setattr(Queue, "send", lose)
        ran = command("dead-letters", "redrive", "--all", "--yes")
    assert (ran.code, ran.out) == (1, "")
    assert "0 dead letters redriven before that; the others are where they were." in ran.err
    assert len(shown(command)) == 1


def test_what_the_input_queue_refuses_is_left(
    command: Command, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(queues, body(str(uuid.uuid4()), "s1"))
    with monkeypatch.context() as refusing:
        refusing.setattr(Queue, "send", lambda _queue, messages: dict.fromkeys(range(len(messages)), "too large"))
        ran = command("dead-letters", "redrive", "--all", "--yes")
    (left,) = shown(command)
    assert (ran.code, ran.out) == (1, "0 dead letters redriven.\n")
    assert ran.err == f"  not redriven: {left['message_id']}: too large\n"


def test_a_letter_that_failed_again_meanwhile_is_left(queues: Queues, command: Command) -> None:
    """Otherwise a worker that is running would make `--all` go on for ever."""
    later = 3_600_000
    bury(queues, body(str(uuid.uuid4()), "s1"))
    with look(queues.dead_letters) as hand:
        (letter,) = hand.receive()
        assert letter.delivery.sent_at_ms < queues.dead_letters.now_ms() + later
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(Queue, "now_ms", lambda _queue: letter.delivery.sent_at_ms - later)
        ran = command("dead-letters", "redrive", "--all", "--yes")
    assert (ran.code, ran.out) == (0, "0 dead letters redriven.\n")
    assert len(shown(command)) == 1


def test_without_a_terminal_a_script_must_say_yes(command: Command, queues: Queues) -> None:
    queues.dead_letters.send([Outgoing("a")])
    ran = command("dead-letters", "drop", "--all")
    assert (ran.code, ran.out) == (2, "")
    assert "say --yes" in ran.err
    assert len(shown(command)) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 1), (b"y\n", 0, 0)])
def test_a_person_is_asked(
    environment: dict[str, str], command: Command, queues: Queues, answer: bytes, code: int, left: int
) -> None:
    queues.dead_letters.send([Outgoing("a")])
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.jobs", "dead-letters", "drop", "--all"],
        cwd=ROOT,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(master, answer)
    assert process.wait(60) == code
    asked = os.read(master, 65_536).decode()
    os.close(master)
    assert f"About 1 dead letter on {queues.dead_letters.name} will be dropped. Go on? [y/N]" in asked
    assert len(shown(command)) == left


def test_without_the_setting_it_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQS_DEAD_LETTER_QUEUE_URL")
    for arguments in (["list"], ["drop", "x"], ["redrive", "x"]):
        ran = command("dead-letters", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("SQS_DEAD_LETTER_QUEUE_URL is not set: ")
