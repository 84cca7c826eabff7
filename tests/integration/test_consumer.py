"""The loop on a real queue, with a service that the test controls: lanes, pauses, drain, liveness."""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from aws_sqs_consumer import Message

from app.acknowledge import Acknowledger
from app.consumer import EXIT_STALLED, SimpleConsumer
from app.errors import OutageError
from app.heartbeat import Heartbeat
from app.outage import Gate
from app.outcomes import Done, Hide, Outcome
from app.parts import Parts
from app.ports import Claimed, SegmentRequest
from app.sqs import Outgoing
from tests.conftest import Queues
from tests.worker import wait_until

JOB = str(uuid.uuid4())


class Recorder:
    """A service that notes what it is given and answers with `answer`."""

    def __init__(self, answer: Callable[[SegmentRequest], Outcome] = lambda _: Done()) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.given_back: list[Claimed] = []

    def process(self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0) -> list[Outcome]:
        self.batches.append([request.segment_id for request in requests])
        return [self.answer(request) for request in requests]

    def give_back(self, claims: Sequence[Claimed]) -> None:
        self.given_back += claims

    @property
    def seen(self) -> list[str]:
        return [segment for batch in self.batches for segment in batch]


def parts_of(queues: Queues, service: Any, **changes: Any) -> Parts:
    heartbeat = Heartbeat(None, queues.segments, visibility_seconds=30)
    values: dict[str, Any] = {
        "queue": queues.segments,
        "acknowledger": Acknowledger(queues.segments, queues.dead_letters, 10),
        "heartbeat": heartbeat,
        "gate": Gate({"SQS": queues.segments.facts}),
        "service": service,
        "helpers": (("heartbeat", heartbeat),),
        "grace_seconds": 3.0,
    }
    return Parts(**{**values, **changes})


@contextmanager
def running(
    parts: Parts, consumer_class: type[SimpleConsumer] = SimpleConsumer
) -> Iterator[tuple[SimpleConsumer, Callable[[], int]]]:
    """The consumer in a thread; the function stops it and gives its exit code."""
    consumer = consumer_class(
        queue_url=parts.queue.url, region="us-east-1", wait_time_seconds=1, visibility_timeout_seconds=30
    )
    consumer._parts = parts
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(consumer.run()), daemon=True)
    thread.start()

    def stop() -> int:
        consumer.stop()
        thread.join(30)
        return codes[0]

    yield consumer, stop
    consumer.stop()
    thread.join(30)
    assert not thread.is_alive()


def body(segment: str) -> Outgoing:
    return Outgoing(json.dumps({"job_id": JOB, "manifestation_id": "M", "segment_id": segment, "start": 0, "end": 1}))


@pytest.mark.parametrize("lanes", [1, 3])
def test_everything_is_handed_over_and_deleted(queues: Queues, lanes: int) -> None:
    service = Recorder()
    queues.segments.send([body(f"s{n}") for n in range(40)])
    with running(parts_of(queues, service, lanes=lanes)) as (_, stop):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
        assert stop() == 0
    assert sorted(service.seen) == sorted(f"s{n}" for n in range(40))


class Doorman:
    """Counts the polls that are under way. `hold` is called at the beginning of each."""

    def __init__(self, queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
        self.polls, self.inside, self.most = 0, 0, 0
        self.hold: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._receive = queues.segments.receive
        monkeypatch.setattr(queues.segments, "receive", self.receive)

    def receive(self, *arguments: Any) -> Any:
        with self._lock:
            self.polls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self.hold()
            return self._receive(*arguments)
        finally:
            with self._lock:
                self.inside -= 1


def test_single_messages_wake_one_lane_each(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    service, door = Recorder(), Doorman(queues, monkeypatch)
    sent: list[str] = []
    with running(parts_of(queues, service, lanes=4)):
        for segment in "abc":
            sent.append(segment)
            queues.segments.send([body(segment)])
            wait_until(lambda: service.seen == sent, "a message handed over")
        polls = door.polls
        wait_until(lambda: door.polls > polls + 1, "two more polls")
    assert door.most == 1


def test_lanes_poll_at_the_same_time_while_there_is_a_backlog(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    service, door = Recorder(), Doorman(queues, monkeypatch)
    queues.segments.send([body(f"s{n}") for n in range(100)])
    together = threading.Event()

    def hold() -> None:
        if door.inside > 1:
            together.set()
        elif door.polls > 1:
            together.wait(10)

    door.hold = hold
    with running(parts_of(queues, service, lanes=2)):
        wait_until(together.is_set, "two polls at the same time")
        wait_until(lambda: len(service.seen) == 100, "everything handed over")


def test_poison_does_not_spoil_its_neighbours(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    service = Recorder()
    queues.segments.send([body("a"), Outgoing("not JSON"), body("b"), Outgoing('{"job_id": 7}')])
    with running(parts_of(queues, service)):
        wait_until(lambda: queues.dead_letters.facts().messages == 2, "two dead letters")
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert sorted(service.seen) == ["a", "b"]
    assert caplog.text.count("is poison") == 2


def test_a_service_that_has_a_bug_loses_nothing(
    queues: Queues, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.consumer.BUG_SECONDS", 0.0)
    service = Recorder()
    failed: list[str] = []

    def fail_once(request: SegmentRequest) -> Outcome:
        if not failed:
            failed.append(request.segment_id)
            raise ZeroDivisionError
        return Done()

    service.answer = fail_once
    queues.segments.send([body("a")])
    with running(parts_of(queues, service)):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert service.seen == ["a", "a"]
    assert caplog.text.count("met a bug") == 1


def test_while_a_service_is_down_nothing_is_received(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Recorder(lambda _: Hide(0.0))
    down = threading.Event()
    probed = threading.Event()

    def probe() -> None:
        probed.set()
        if down.is_set():
            raise OutageError("PostgreSQL", "connection refused")

    down.set()
    gate = Gate({"PostgreSQL": probe})
    gate.close("PostgreSQL", "connection refused")
    queues.segments.send([body("a")])
    with running(parts_of(queues, service, gate=gate, lanes=2)):
        assert probed.wait(20)
        assert service.batches == []
        service.answer = lambda _: Done()
        down.clear()
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert service.seen == ["a"]
    assert caplog.text.count("PostgreSQL is down") == 1
    assert caplog.text.count("PostgreSQL is back") == 1


def test_stopping_finishes_what_is_in_hand(queues: Queues) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: SegmentRequest) -> Outcome:
        entered.set()
        assert leave.wait(30)
        return Done()

    queues.segments.send([body("a")])
    with running(parts_of(queues, Recorder(slow), grace_seconds=30.0)) as (consumer, stop):
        assert entered.wait(30)
        consumer.stop()
        leave.set()
        assert stop() == 0
    assert queues.segments.facts().messages == 0


def test_what_hangs_is_handed_back_at_the_deadline(queues: Queues) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(_: SegmentRequest) -> Outcome:
        entered.set()
        assert leave.wait(60)
        return Hide(600.0)

    service = Recorder(hang)
    parts = parts_of(queues, service, grace_seconds=1.0)
    claim = Claimed("t", "token", JOB, "M", "a", 0, 1, 1, 0, 0)
    queues.segments.send([body("a")])
    with running(parts) as (_, stop):
        assert entered.wait(30)
        parts.heartbeat.hold([claim])
        assert stop() == 0
        assert service.given_back == [claim]
        assert len(queues.segments.receive(1, 1, 30)) == 1
        leave.set()


def test_a_lane_that_hangs_ends_the_process(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    leave = threading.Event()

    def hang(_: SegmentRequest) -> Outcome:
        assert leave.wait(60)
        return Done()

    queues.segments.send([body("a")])
    codes: list[int] = []
    with running(parts_of(queues, Recorder(hang), stall_seconds=2.0, grace_seconds=1.0)) as (consumer, stop):
        wait_until(consumer.stopping.is_set, "the watchdog")
        codes.append(stop())
        leave.set()
    assert codes == [EXIT_STALLED]
    assert "has made no progress" in caplog.text


def test_a_subclass_with_its_own_handle_message_gets_each_message(queues: Queues) -> None:
    handled: list[str] = []

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            handled.append(message.Body)

    queues.segments.send([Outgoing("one"), Outgoing("two")])
    with running(parts_of(queues, None), Mine):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert sorted(handled) == ["one", "two"]


def test_a_message_whose_handler_raises_comes_back(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.consumer.BUG_SECONDS", 0.0)
    handled: list[str] = []

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            handled.append(message.Attributes["ApproximateReceiveCount"])
            if len(handled) == 1:
                raise RuntimeError("try again")

    queues.segments.send([Outgoing("one")])
    with running(parts_of(queues, None), Mine):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert handled == ["1", "2"]


def test_the_library_s_limits_on_a_batch_stay() -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        SimpleConsumer(queue_url="http://localhost/q", region="us-east-1", batch_size=11)
