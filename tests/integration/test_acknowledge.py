"""Outcomes acted on, with a real queue: what is deleted, hidden, copied, dead-lettered, left."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from app.core.outcomes import Dead, Done, Hide, Leave, Outcome
from app.errors import OutageError, TransientError
from app.sqs.acknowledge import Acknowledger
from app.sqs.delivery import COPY_SLACK_MS, Delivery, read_delivery
from app.sqs.queue import Outgoing, Queue
from tests.support.services import Queues
from tests.support.worker import wait_until


def receive(queue: Queue, visibility_seconds: int = 60) -> Delivery:
    found: list[Delivery] = []

    def poll() -> bool:
        found.extend(read_delivery(m, time.monotonic()) for m in queue.receive(1, 1, visibility_seconds))
        return bool(found)

    wait_until(poll, f"a message on {queue.name}")
    return found[0]


def one(queues: Queues, body: str = "m") -> Delivery:
    queues.segments.send([Outgoing(body)])
    return receive(queues.segments)


def act(queues: Queues, delivery: Delivery, outcome: Outcome, *, dead: bool = True, limit: int | None = 10) -> None:
    Acknowledger(queues.segments, queues.dead_letters if dead else None, limit).act([delivery], [outcome])


def test_done_is_deleted(queues: Queues) -> None:
    act(queues, one(queues), Done())
    assert queues.segments.facts().messages == 0


def test_left_is_untouched(queues: Queues) -> None:
    act(queues, one(queues), Leave())
    assert queues.segments.facts().messages == 1
    assert queues.segments.receive(1, 0, 60) == []


def test_hidden_comes_back(queues: Queues) -> None:
    act(queues, one(queues), Hide(0.0))
    assert receive(queues.segments).receive_count == 2


def test_hidden_stays_away_until_then(queues: Queues) -> None:
    act(queues, one(queues), Hide(600.0))
    assert queues.segments.receive(1, 1, 60) == []


def test_on_the_last_receive_good_work_is_sent_as_a_fresh_copy(make_queues: Callable[..., Queues]) -> None:
    queues = make_queues(max_receive_count=2)
    first = one(queues, "work")
    act(queues, first, Hide(0.0), limit=2)
    last = receive(queues.segments)
    assert last.receive_count == 2
    act(queues, last, Hide(0.0), limit=2)
    copy = receive(queues.segments)
    assert (copy.body, copy.receive_count) == ("work", 1)
    assert copy.message_id != first.message_id
    assert copy.first_sent_at_ms == first.sent_at_ms
    assert queues.segments.facts().messages == 1
    assert queues.dead_letters.facts().messages == 0


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_copy_is_told_from_a_redriven_one_whatever_this_machine_takes_the_time_to_be(
    queues: Queues, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = time.time() + 3_600 * hours
    monkeypatch.setattr("app.sqs.queue.time.time", lambda: wrong)
    first = one(queues)
    act(queues, first, Hide(0.0), limit=1)
    copy = receive(queues.segments)
    assert copy.message_id != first.message_id
    assert copy.first_sent_at_ms == first.sent_at_ms
    redriven = replace(copy, sent_at_ms=copy.sent_at_ms + COPY_SLACK_MS + 2_000)
    assert redriven.first_sent_at_ms == redriven.sent_at_ms


class Deaf(Queue):
    """Delivers and deletes, but takes nothing new."""

    def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        raise OutageError("SQS", "no")


def test_an_original_whose_copy_can_not_be_sent_stays_where_it_is(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    last = one(queues)
    Acknowledger(Deaf(queues.segments._client, queues.segments.url), None, 1).act([last], [Hide(600.0)])
    assert queues.segments.facts().messages == 1
    assert "was not sent on" in caplog.text


def test_dead_goes_to_the_dead_letter_queue_with_its_reason(queues: Queues) -> None:
    act(queues, one(queues, "poison"), Dead("start: missing", recorded=False))
    letter = receive(queues.dead_letters)
    assert letter.body == "poison"
    assert letter.attributes["reason"]["StringValue"] == "start: missing"
    assert queues.segments.facts().messages == 0


def test_without_a_dead_letter_queue_of_ours_dead_is_left_to_the_redrive_policy(
    make_queues: Callable[..., Queues], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sqs.acknowledge.REDRIVE_SECONDS", 0)
    queues = make_queues(max_receive_count=2)
    act(queues, one(queues, "poison"), Dead("why", recorded=False), dead=False, limit=2)
    act(queues, receive(queues.segments), Dead("why", recorded=False), dead=False, limit=2)
    assert queues.segments.receive(1, 1, 60) == []
    assert receive(queues.dead_letters).body == "poison"


def test_with_nowhere_to_go_a_recorded_failure_is_deleted_with_an_error(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    act(queues, one(queues), Dead("unknown manifestation", recorded=True), dead=False, limit=None)
    assert queues.segments.facts().messages == 0
    assert [(r.levelno, "unknown manifestation" in r.getMessage()) for r in caplog.records] == [(logging.ERROR, True)]


def test_with_nowhere_to_go_poison_is_kept(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    act(queues, one(queues), Dead("not JSON", recorded=False), dead=False, limit=None)
    assert queues.segments.facts().messages == 1
    assert "SQS_DEAD_LETTER_QUEUE_URL" in caplog.text


def test_a_dead_letter_that_can_not_be_sent_stays_where_it_is(queues: Queues, caplog: pytest.LogCaptureFixture) -> None:
    missing = Queue(queues.dead_letters._client, queues.dead_letters.url + "-missing")
    Acknowledger(queues.segments, missing, 10).act([one(queues)], [Dead("why", recorded=True)])
    assert queues.segments.facts().messages == 1
    assert "was not sent on" in caplog.text


def test_a_batch_of_everything_in_one_go(queues: Queues) -> None:
    deliveries = [one(queues, str(n)) for n in range(4)]
    outcomes: list[Outcome] = [Done(), Hide(0.0), Dead("why", recorded=False), Leave()]
    Acknowledger(queues.segments, queues.dead_letters, 10).act(deliveries, outcomes)
    assert receive(queues.segments).body == "1"
    assert receive(queues.dead_letters).body == "2"
    assert queues.segments.facts().messages == 2


class Counting(Queue):
    """Counts the calls that send; refuses the bodies that it is told to, in its answer or by refusing the call."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue._client, queue.url)
        self.calls: list[int] = []
        self.refused = ""
        self.refused_with_all_others = ""

    def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
        self.calls.append(len(messages))
        if any(message.body == self.refused_with_all_others for message in messages):
            raise TransientError("SQS refuses the call: InvalidMessageContents")
        good = [at for at, message in enumerate(messages) if message.body != self.refused]
        super().send([messages[at] for at in good])
        return {at: "no" for at in range(len(messages)) if at not in good}


def bury_three(queues: Queues, letters: Queue) -> list[str]:
    """The bodies that are dead letters then; the others are still on the input queue."""
    deliveries = [one(queues, body) for body in "abc"]
    Acknowledger(queues.segments, letters, 10).act(deliveries, [Dead("why", recorded=False)] * 3)
    assert queues.segments.facts().messages + queues.dead_letters.facts().messages == 3
    return sorted(receive(queues.dead_letters).body for _ in range(queues.dead_letters.facts().messages))


def test_dead_letters_of_a_batch_go_in_one_call(queues: Queues) -> None:
    letters = Counting(queues.dead_letters)
    assert bury_three(queues, letters) == ["a", "b", "c"]
    assert letters.calls == [3]


def test_a_dead_letter_that_is_refused_alone_stays_where_it_is(
    queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    letters = Counting(queues.dead_letters)
    letters.refused = "b"
    assert bury_three(queues, letters) == ["a", "c"]
    assert caplog.text.count("was not sent on") == 1


def test_a_dead_letter_that_spoils_the_call_does_not_keep_its_neighbours(queues: Queues) -> None:
    letters = Counting(queues.dead_letters)
    letters.refused_with_all_others = "b"
    assert bury_three(queues, letters) == ["a", "c"]
    assert letters.calls == [3, 1, 1, 1]


def test_an_outage_is_not_asked_again_for_each_message(queues: Queues) -> None:
    class Down(Counting):
        def send(self, messages: Sequence[Outgoing]) -> dict[int, str]:
            self.calls.append(len(messages))
            raise OutageError("SQS", "no")

    letters = Down(queues.dead_letters)
    assert bury_three(queues, letters) == []
    assert letters.calls == [3]
