"""The line that says how it goes: what it says and when."""

import logging
from collections import Counter

import pytest

from app.core.lag import Lag, OldestJob
from app.core.outcomes import Dead, Done, Hide
from app.threads.gate import Gate
from app.worker.how_it_goes import describe, duration
from app.worker.lookout import WorkAhead
from app.worker.reporter import REPORT_SECONDS, Reporter
from app.worker.tally import Tally

CALM = WorkAhead(backlog=0, dead_letters=0, lag=Lag())


class Hand:
    """A reporter whose clock is turned by hand, minute by minute."""

    def __init__(self, ahead: WorkAhead = CALM) -> None:
        self.now = 0.0
        self.looks = 0
        self.ahead = ahead
        self.tally = Tally()
        self.gate = Gate(clock=lambda: self.now)
        self.reporter = Reporter(self.tally, self.gate, self.look, clock=lambda: self.now)

    def look(self) -> WorkAhead:
        self.looks += 1
        return self.ahead

    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.now += REPORT_SECONDS
            self.reporter.report_when_due()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "app.worker.loop")
    return caplog


def test_a_line_a_minute_while_messages_come(log: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    hand.tally.add([Done()] * 1_190 + [Hide(5)] * 9 + [Dead("why", recorded=True)])
    hand.reporter.report_when_due()
    assert not log.messages
    hand.minutes(1)
    hand.tally.add([Done()])
    hand.minutes(1)
    assert log.messages == [
        "1,200 messages in 60 s (20.0/s): 1,190 done, 9 to come back, 1 dead-lettered; backlog 0; no unfinished job",
        "1 messages in 60 s (0.0/s): 1 done; backlog 0; no unfinished job",
    ]


def test_an_idle_worker_says_so_at_once_and_then_rarely(log: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    hand.minutes(11)
    assert log.messages == [
        "no messages in 60 s; backlog 0; no unfinished job",
        "no messages in 600 s; backlog 0; no unfinished job",
    ]
    assert hand.looks == 2, "nobody is asked for what is not said"
    hand.tally.add([Done()])
    hand.minutes(2)
    assert len(log.messages) == 4, "work is told of in its own minute, and its end in the next"


def test_an_outage_is_told_of_each_minute_and_a_long_one_rarely(log: pytest.LogCaptureFixture) -> None:
    hand = Hand(WorkAhead(backlog=3_400))
    hand.minutes(1)
    hand.gate.close("PostgreSQL", "it is gone")
    log.clear()
    hand.minutes(30)
    assert {line.levelno for line in log.records} == {logging.WARNING}
    said = log.messages
    assert said[2] == "PostgreSQL has been down for 3 minutes, receiving is paused; no messages in 60 s; backlog 3,400"
    assert len(said) == 9 + 2
    assert said[-1].startswith("PostgreSQL has been down for 29 minutes")
    hand.gate.reopen("PostgreSQL")
    log.clear()
    hand.minutes(11)
    assert [line.levelno for line in log.records] == [logging.INFO]


def test_what_is_wrong_stands_first_and_what_is_not_known_nowhere() -> None:
    lag = Lag(OldestJob("550e8400", "root-bo", 7_300), unsent_completions=2, unsent_seconds=150)
    assert describe(Counter(), 60, {"SQS": 130, "Neo4j": 5}, WorkAhead(lag=lag, dead_letters=3)) == (
        "Neo4j has been down for 5 s, SQS has been down for 2 minutes, receiving is paused; no messages in 60 s;"
        " dead letters 3; oldest unfinished job 550e8400 of root-bo, 2 hours old;"
        " 2 completions not sent for 2 minutes"
    )
    assert describe(Counter(), 60, {}, WorkAhead()) == "no messages in 60 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (119, "119 s"), (120, "2 minutes"), (7_199, "120 minutes"), (7_200, "2 hours"), (200_000, "2 days")],
)
def test_durations_are_told_as_people_tell_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
