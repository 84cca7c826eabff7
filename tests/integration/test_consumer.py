"""The loop on a real queue, with a service that the test controls: lanes, pauses, drain, liveness."""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from aws_sqs_consumer import Message

from app.core.endings import Announcement
from app.core.outcomes import Done, Hide, Outcome
from app.core.segments import Claimed, SegmentRequest
from app.errors import OutageError
from app.main import SimpleConsumer
from app.outbox.relay import Relay
from app.outbox.sweep import Sweep
from app.sqs.acknowledge import Acknowledger
from app.sqs.queue import Outgoing
from app.threads.gate import Gate
from app.threads.progress import Progress
from app.threads.stopping import Stop
from app.worker.handling import Handler, MessageHandler, SegmentHandler
from app.worker.heartbeat import Heartbeat
from app.worker.housekeeper import Housekeeper
from app.worker.in_flight import InFlight
from app.worker.loop import EXIT_OK, EXIT_STALLED, Loop
from app.worker.parts import Limits, Parts
from app.worker.prober import Prober
from app.worker.wiring import Wanted, build_message_loop
from tests.support.services import Queues
from tests.support.worker import wait_until

JOB = str(uuid.uuid4())
REGION = "us-east-1"


class Recorder:
    """A service that notes what it is given and answers with `answer`."""

    def __init__(self, answer: Callable[[SegmentRequest], Outcome] = lambda _: Done()) -> None:
        self.answer = answer
        self.batches: list[list[str]] = []
        self.given_back: list[Claimed] = []

    def catch_up(self) -> None: ...

    def process(self, requests: Sequence[SegmentRequest], age_seconds: float = 0.0) -> list[Outcome]:
        self.batches.append([request.segment_id for request in requests])
        return [self.answer(request) for request in requests]

    def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
        self.given_back += claims
        return frozenset(claim.task_id for claim in claims)

    @property
    def seen(self) -> list[str]:
        return [segment for batch in self.batches for segment in batch]


def parts_of(queues: Queues, handler: Handler | Recorder, **changes: Any) -> tuple[Parts, Limits]:
    """The parts and limits of a loop; `changes`: of either, by name."""
    gate = changes.pop("gate", Gate())
    in_flight = InFlight()
    heartbeat = Heartbeat(in_flight, queues.segments, visibility_seconds=30)
    values: dict[str, Any] = {
        "queue": queues.segments,
        "acknowledger": Acknowledger(queues.segments, queues.dead_letters, 10),
        "in_flight": in_flight,
        "gate": gate,
        "prober": Prober(gate, {"SQS": queues.segments.facts, **changes.pop("probes", {})}),
        "handler": SegmentHandler(handler, in_flight) if isinstance(handler, Recorder) else handler,
        "progress": Progress(),
        "helpers": {"heartbeat": heartbeat},
    }
    limits: dict[str, Any] = {"wait_time_seconds": 1, "visibility_timeout_seconds": 30, "grace_seconds": 3.0}
    of_parts = {field.name for field in fields(Parts)}
    for name, value in changes.items():
        (values if name in of_parts else limits)[name] = value
    return Parts(**values), Limits(**limits)


@contextmanager
def running(parts_and_limits: tuple[Parts, Limits]) -> Iterator[tuple[Loop, Callable[[], int]]]:
    """The loop in a thread; the function stops it and gives its exit code."""
    loop = Loop(*parts_and_limits, Stop())
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(loop.run()), daemon=True)
    thread.start()

    def stop() -> int:
        loop.stopping.set()
        thread.join(30)
        return codes[0]

    yield loop, stop
    loop.stopping.set()
    thread.join(30)
    assert not thread.is_alive()


def claim_of(segment: str) -> Claimed:
    return Claimed(f"task {segment}", f"token {segment}", JOB, "M", segment, 0, 1, 1, 0, 0)


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
        self.hold: Callable[[], object] = lambda: None
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


def test_poison_is_told_by_its_job_and_segment_as_far_as_they_can_be_read(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    known, no_span = json.dumps({"job_id": JOB, "segment_id": "a"}), "manifestation_id: Field required"
    queues.segments.send([Outgoing(known), Outgoing(json.dumps({"job_id": JOB})), Outgoing('{"segment_id": "b"}')])
    with running(parts_of(queues, Recorder())):
        wait_until(lambda: queues.dead_letters.facts().messages == 3, "three dead letters")
    said = sorted(record.getMessage().partition(no_span)[0] for record in caplog.records if no_span in record.message)
    assert said[0].startswith(f"A segment of job {JOB} is poison: ")
    assert said[1].startswith(f"Segment a of job {JOB} is poison: ")
    assert said[2].startswith("Segment b of an unreadable job is poison: ")


def test_a_service_that_has_a_bug_loses_nothing(
    queues: Queues, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.worker.handling.BUG_SECONDS", 0.0)
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
    gate = Gate()
    gate.close("PostgreSQL", "connection refused")
    queues.segments.send([body("a")])
    with running(parts_of(queues, service, gate=gate, probes={"PostgreSQL": probe}, lanes=2)):
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
    with running(parts_of(queues, Recorder(slow), grace_seconds=30.0)) as (loop, stop):
        assert entered.wait(30)
        loop.stopping.set()
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
    parts, limits = parts_of(queues, service, grace_seconds=1.0)
    claim = claim_of("a")
    queues.segments.send([body("a")])
    with running((parts, limits)) as (_, stop):
        assert entered.wait(30)
        parts.in_flight.hold([claim])
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
    with running(parts_of(queues, Recorder(hang), stall_seconds=2.0, grace_seconds=1.0)) as (loop, stop):
        wait_until(loop.stopping.is_set, "the watchdog")
        codes.append(stop())
        leave.set()
    assert codes == [EXIT_STALLED]
    assert "has made no progress" in caplog.text


def test_what_a_hung_lane_holds_is_left_to_its_lease_and_the_rest_is_given_back(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    """Given back, it would hang the next worker at once, and never be charged for it."""
    entered: dict[str, threading.Event] = {"bad": threading.Event(), "slow": threading.Event()}
    leave = threading.Event()

    def work(request: SegmentRequest) -> Outcome:
        parts.in_flight.hold([claim_of(request.segment_id)])
        entered[request.segment_id].set()
        while not leave.wait(0.1):
            if request.segment_id == "slow":
                parts.progress.mark()
        return Hide(600.0)

    service = Recorder(work)
    parts, limits = parts_of(queues, service, lanes=2, stall_seconds=3.0, grace_seconds=1.0)
    with running((parts, limits)) as (loop, stop):
        for segment, event in entered.items():
            queues.segments.send([body(segment)])
            assert event.wait(30)
        wait_until(loop.stopping.is_set, "the watchdog")
        assert stop() == EXIT_STALLED
        came_back = [json.loads(str(message["Body"]))["segment_id"] for message in queues.segments.receive(10, 2, 30)]
        assert came_back == ["slow"]
        assert service.given_back == [claim_of("slow")]
        leave.set()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"segment bad of job {JOB}" in told[0]
    assert "slow" not in told[0]


class Hanging:
    """A helper that never asks whether to stop."""

    def __init__(self) -> None:
        self.leave = threading.Event()

    def run(self, stop: Stop) -> None:
        self.leave.wait(60)


class Dying:
    """A helper that ends although nobody has asked it to."""

    def run(self, stop: Stop) -> None: ...


@pytest.mark.parametrize("helper", [Hanging(), Dying()])
def test_a_helper_that_hangs_or_dies_ends_the_process(
    helper: Hanging | Dying, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    parts, limits = parts_of(queues, Recorder(), stall_seconds=2.0, helpers={"tidier": helper})
    with running((parts, limits)) as (loop, stop):
        wait_until(loop.stopping.is_set, "the watchdog")
        assert stop() == EXIT_STALLED
    assert "tidier has made no progress" in caplog.text


def test_helpers_and_lanes_that_wait_do_not_hang(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Doorman(queues, monkeypatch)
    patient = Heartbeat(InFlight(), queues.segments, visibility_seconds=14_400)
    parts, limits = parts_of(queues, Recorder(), stall_seconds=2.5, lanes=2, helpers={"patient": patient})
    with running((parts, limits)) as (_, stop):
        wait_until(lambda: door.polls > 5, "polls for longer than a stall")
        assert stop() == EXIT_OK


def test_a_pause_longer_than_a_stall_is_none(queues: Queues) -> None:
    probes: list[float] = []

    def probe() -> None:
        probes.append(0.0)
        raise OutageError("PostgreSQL", "connection refused")

    gate = Gate()
    gate.close("PostgreSQL", "connection refused")
    with running(parts_of(queues, Recorder(), gate=gate, probes={"PostgreSQL": probe}, lanes=2, stall_seconds=1.0)) as (
        _,
        stop,
    ):
        wait_until(lambda: len(probes) == 3, "three probes, half a second and more apart")
        assert stop() == EXIT_OK


class Later:
    """An outbox that notes what is marked."""

    def __init__(self) -> None:
        self.marked: list[Announcement] = []

    def mark_sent(self, announcements: Sequence[Announcement]) -> None:
        self.marked += announcements


def test_a_job_that_ends_at_the_deadline_is_announced_by_this_process(queues: Queues) -> None:
    """Its lane commits while its claim is being given back."""
    outbox: Any = Later()
    gate = Gate()
    relay = Relay(outbox, queues.completed)
    keeper = Housekeeper(relay, Sweep(outbox, relay, queues.segments, outbox), gate, every_seconds=1_000)
    announcement = Announcement(JOB, "M", str(uuid.uuid4()))
    entered, asked, slowly = threading.Event(), threading.Event(), threading.Event()

    class Settling(Recorder):
        def give_back(self, claims: Sequence[Claimed]) -> frozenset[str]:
            asked.set()
            return frozenset()  # committed by its lane a moment ago, which has not handed the announcement over yet

    def settle(_: SegmentRequest) -> Outcome:
        parts.in_flight.hold([claim_of("a")])
        entered.set()
        assert asked.wait(30)
        slowly.wait(0.5)  # between its commit and the handing over
        keeper.submit([announcement])
        parts.in_flight.release([claim_of("a")])
        return Done()

    parts, limits = parts_of(
        queues,
        Settling(settle),
        gate=gate,
        grace_seconds=6.0,
        helpers={"housekeeper": keeper},
        is_idle=lambda: keeper.is_idle,
    )
    queues.segments.send([body("a")])
    with running((parts, limits)) as (_, stop):
        assert entered.wait(30)
        assert stop() == EXIT_OK
        assert outbox.marked == [announcement]
    assert queues.completed.facts().messages == 1


def test_what_a_parked_poll_brings_while_stopping_is_handed_back_at_once(
    queues: Queues, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    door, service = Doorman(queues, monkeypatch), Recorder()
    with running(parts_of(queues, service, grace_seconds=25.0, wait_time_seconds=20)) as (loop, stop):
        wait_until(lambda: door.inside == 1, "a parked poll")
        loop.stopping.set()
        wait_until(lambda: "for a poll to end" in caplog.text or "Stopped" in caplog.text, "it to wait for the poll")
        queues.segments.send([body("a")])
        assert stop() == EXIT_OK
        assert "is cut" not in caplog.text, "it was waited for"
        assert [message["Attributes"]["ApproximateReceiveCount"] for message in queues.segments.receive(1, 0, 30)] == [
            "2"
        ]
    assert service.seen == []


def test_a_poll_that_outlasts_the_grace_is_left(
    queues: Queues, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door, leave = Doorman(queues, monkeypatch), threading.Event()
    door.hold = lambda: leave.wait(60)
    with running(parts_of(queues, Recorder(), grace_seconds=1.0)) as (_, stop):
        wait_until(lambda: door.inside == 1, "a parked poll")
        assert stop() == EXIT_OK
        assert not leave.is_set()
        leave.set()
    assert "1 poll is cut" in caplog.text


def test_a_subclass_with_its_own_handle_message_gets_each_message(queues: Queues) -> None:
    handled: list[str] = []

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            super().handle_message(message)  # does nothing, as in the library
            handled.append(message.Body)

    queues.segments.send([Outgoing("one"), Outgoing("two")])
    with running(parts_of(queues, MessageHandler(Mine(queue_url=queues.segments.url, region=REGION).handle_message))):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert sorted(handled) == ["one", "two"]


def test_a_message_whose_handler_raises_comes_back(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.worker.handling.BUG_SECONDS", 0.0)
    handled: list[str] = []

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            handled.append(message.Attributes["ApproximateReceiveCount"])
            if len(handled) == 1:
                raise RuntimeError("try again")

    queues.segments.send([Outgoing("one")])
    with running(parts_of(queues, MessageHandler(Mine(queue_url=queues.segments.url, region=REGION).handle_message))):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
    assert handled == ["1", "2"]


def test_many_slow_messages_are_no_stall(queues: Queues) -> None:
    handled: list[str] = []
    takes = threading.Event()

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            takes.wait(0.8)
            handled.append(message.Body)

    queues.segments.send([Outgoing(str(n)) for n in range(6)])
    with running(
        parts_of(
            queues, MessageHandler(Mine(queue_url=queues.segments.url, region=REGION).handle_message), stall_seconds=2.5
        )
    ) as (_, stop):
        wait_until(lambda: queues.segments.facts().messages == 0, "an empty queue")
        assert stop() == EXIT_OK
    assert sorted(handled) == [str(n) for n in range(6)]


def test_a_message_of_a_subclass_is_deleted_as_soon_as_it_is_handled(queues: Queues) -> None:
    handled: list[str] = []
    leave = threading.Event()

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            handled.append(message.Body)
            if len(handled) == 3:
                assert leave.wait(120)  # longer than the deletions are waited for

    queues.segments.send([Outgoing(str(n)) for n in range(3)])
    with running(parts_of(queues, MessageHandler(Mine(queue_url=queues.segments.url, region=REGION).handle_message))):
        wait_until(lambda: len(handled) == 3, "the last message")
        wait_until(lambda: queues.segments.facts().messages == 1, "the other two to be deleted")
        leave.set()


def test_what_a_subclass_has_not_begun_is_handed_back_when_it_is_told_to_stop(queues: Queues) -> None:
    handled: list[str] = []
    leave = threading.Event()

    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None:
            handled.append(message.Body)
            assert leave.wait(60)

    queues.segments.send([Outgoing("one"), Outgoing("two")])
    with running(
        parts_of(
            queues,
            MessageHandler(Mine(queue_url=queues.segments.url, region=REGION).handle_message),
            grace_seconds=30.0,
        )
    ) as (loop, stop):
        wait_until(lambda: len(handled) == 1, "the first message")
        loop.stopping.set()
        leave.set()
        assert stop() == EXIT_OK
    assert len(handled) == 1
    assert queues.segments.facts().messages == 1
    assert len(queues.segments.receive(1, 0, 30)) == 1


@pytest.mark.parametrize(("asked", "lanes"), [({}, 1), ({"SQS_BATCHES_IN_HAND": "3"}, 3)])
def test_a_subclass_is_called_from_one_thread_unless_more_are_asked_for(
    asked: dict[str, str], lanes: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(SimpleConsumer):
        def handle_message(self, message: Message) -> None: ...

    for name, value in {**environment, **asked}.items():
        monkeypatch.setenv(name, value)
    mine = Mine(queue_url=environment["SQS_QUEUE_URL"])
    loop = build_message_loop(Wanted(mine.queue_url), mine.handle_message, Stop())
    assert loop.limits.lanes == lanes


def test_the_library_s_limits_on_a_batch_stay() -> None:
    with pytest.raises(ValueError, match="between 1 and 10"):
        SimpleConsumer(queue_url="http://localhost/q", region="us-east-1", batch_size=11)
