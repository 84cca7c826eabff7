"""How a lane's batch is filled from receives."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from app.errors import OutageError
from app.sqs.queue import Queue
from app.threads.gate import Gate
from app.threads.stopping import Stop
from app.worker.parts import Limits
from app.worker.poller import Poller

type Answer = int | Exception


class ScriptedQueue:
    """Gives so many messages a receive, or raises; notes how long each receive would have waited."""

    def __init__(self, script: list[Answer], when_asked: Callable[[], None] = lambda: None) -> None:
        self.waits: list[int] = []
        self._script = script
        self._when_asked = when_asked
        self._number = 0

    def receive(self, most: int, wait_seconds: int, visibility_seconds: int) -> list[dict[str, Any]]:
        self.waits.append(wait_seconds)
        self._when_asked()
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self._number += answer
        return [{"MessageId": str(at), "ReceiptHandle": "r"} for at in range(self._number - answer, self._number)]


def poller(queue: ScriptedQueue, gate: Gate | None = None, receives: int = 2) -> Poller:
    limits = Limits(batch_size=10, wait_time_seconds=20, receives_a_batch=receives)
    return Poller(cast("Queue", queue), gate or Gate(), limits)


@pytest.mark.parametrize(
    ("script", "taken", "waits"),
    [
        ([10, 10, 10], 20, [20, 0]),
        ([10, 3], 13, [20, 0]),
        ([10, 0], 10, [20, 0]),
        ([9, 10], 9, [20]),
        ([0, 10], 0, [20]),
    ],
)
def test_a_full_receive_is_followed_by_one_that_waits_for_nothing(
    script: list[Answer], taken: int, waits: list[int]
) -> None:
    queue = ScriptedQueue(script)
    batch = poller(queue).receive(Stop())
    assert batch is not None
    assert [delivery.message_id for delivery in batch] == [str(at) for at in range(taken)]
    assert queue.waits == waits


def test_one_receive_is_all_where_no_more_are_wanted() -> None:
    queue = ScriptedQueue([10, 10])
    assert len(poller(queue, receives=1).receive(Stop()) or ()) == 10
    assert queue.waits == [20]


def test_what_the_first_receive_brought_is_kept_when_the_second_fails() -> None:
    gate = Gate()
    batch = poller(ScriptedQueue([10, OutageError("SQS", "is down")]), gate).receive(Stop())
    assert len(batch or ()) == 10
    assert not gate.is_open


def test_who_is_told_to_stop_asks_no_second_time() -> None:
    stop = Stop()
    queue = ScriptedQueue([10, 10], when_asked=stop.set)
    assert len(poller(queue).receive(stop) or ()) == 10
    assert queue.waits == [20]
