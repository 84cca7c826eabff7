"""What the heartbeat renews, in which order, and what it leaves alone."""

import logging
import threading
from collections.abc import Sequence

import pytest

from app.core.segments import Claimed
from app.errors import OutageError
from app.sqs.delivery import Delivery
from app.sqs.queue import MAX_VISIBILITY_SECONDS
from app.threads.stopping import Stop
from app.worker.heartbeat import Heartbeat, lease_seconds_of
from app.worker.in_flight import InFlight
from tests.support.fakes import FakeClock

VISIBILITY_SECONDS = 60


class World:
    """The rows and the queue; what was done to them, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.lost: set[str] = set()
        self.refused: dict[int, str] = {}
        self.error: Exception | None = None
        self.seconds: list[int] = []
        self.lease_seconds: list[float] = []

    def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
        self.calls.append(("renew", [claim.token for claim in claims]))
        self.lease_seconds.append(lease_seconds)
        if self.error:
            raise self.error
        return {claim.token for claim in claims} - self.lost

    def hide(self, handles: Sequence[tuple[str, int]]) -> dict[int, str]:
        self.calls.append(("hide", [handle for handle, _ in handles]))
        self.seconds += [seconds for _, seconds in handles]
        return self.refused


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight()


def make_heartbeat(in_flight: InFlight, world: World, clock: FakeClock) -> Heartbeat:
    return Heartbeat(in_flight, world, visibility_seconds=VISIBILITY_SECONDS, renewer=world, clock=clock)


@pytest.fixture
def heartbeat(in_flight: InFlight, world: World, clock: FakeClock) -> Heartbeat:
    return make_heartbeat(in_flight, world, clock)


def claim(name: str) -> Claimed:
    return Claimed(f"task {name}", f"token {name}", "job", "M", name, 0, 1, 1, 0, 0)


def delivery(clock: FakeClock, name: str) -> Delivery:
    return Delivery(f"id {name}", name, "", 1, 0, {}, received_at=clock())


def test_rows_are_renewed_before_visibility(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    with in_flight.watching([delivery(clock, "a"), delivery(clock, "b")]):
        in_flight.hold([claim("a")])
        heartbeat.beat()
    assert world.calls == [("renew", ["token a"]), ("hide", ["a", "b"])]
    assert world.seconds == [VISIBILITY_SECONDS] * 2


def test_the_lease_ends_at_least_a_second_before_the_visibility(
    heartbeat: Heartbeat, world: World, in_flight: InFlight
) -> None:
    in_flight.hold([claim("a")])
    heartbeat.beat()
    assert world.lease_seconds == [lease_seconds_of(VISIBILITY_SECONDS)]
    assert lease_seconds_of(VISIBILITY_SECONDS) <= VISIBILITY_SECONDS - 1


def test_what_is_in_hand_and_not_claimed_yet_is_kept_too(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    with in_flight.watching([delivery(clock, "a")]):
        heartbeat.beat()
    assert world.calls == [("hide", ["a"])]


def test_nothing_in_hand_costs_nothing(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    with in_flight.watching([delivery(clock, "a")]):
        in_flight.hold([claim("a")])
        in_flight.release([claim("a")])
    heartbeat.beat()
    assert world.calls == []


def test_visibility_is_not_extended_past_a_lease_that_could_not_be_renewed(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    world.error = OutageError("PostgreSQL", "gone")
    with in_flight.watching([delivery(clock, "a")]):
        in_flight.hold([claim("a")])
        with pytest.raises(OutageError):
            heartbeat.beat()
    assert world.calls == [("renew", ["token a"])]
    assert not in_flight.is_lost(claim("a"))


def lose_a(heartbeat: Heartbeat, in_flight: InFlight, world: World) -> None:
    """Somebody else has claimed `a` since."""
    in_flight.hold([claim("a"), claim("b")])
    world.lost = {"token a"}
    heartbeat.beat()


def test_a_lost_claim_is_marked_and_its_message_left_alone(
    heartbeat: Heartbeat, world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture, in_flight: InFlight
) -> None:
    caplog.set_level(logging.INFO)
    first, duplicate, other = delivery(clock, "a1"), delivery(clock, "a2"), delivery(clock, "b")
    with in_flight.watching([first, duplicate, other]):
        for each, name in ((first, "a"), (duplicate, "a"), (other, "b")):
            in_flight.name(each, "job", name)
        lose_a(heartbeat, in_flight, world)
        assert in_flight.is_lost(claim("a"))
        assert not in_flight.is_lost(claim("b"))
        assert world.calls[-1] == ("hide", ["b"])
        assert in_flight.snapshot() == ([other], [claim("b")])
        heartbeat.beat()
        assert world.calls[-2:] == [("renew", ["token b"]), ("hide", ["b"])]
    assert [record.getMessage() for record in caplog.records] == ["The lease on segment a of job job is gone"]


def test_its_message_is_left_alone_also_when_its_run_has_ended(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    """The rest of the batch may take long to acknowledge; until then beats go on."""
    first, other = delivery(clock, "a"), delivery(clock, "b")
    with in_flight.watching([first, other]):
        in_flight.name(first, "job", "a")
        in_flight.name(other, "job", "b")
        lose_a(heartbeat, in_flight, world)
        in_flight.release([claim("a"), claim("b")])
        heartbeat.beat()
        assert world.calls[-1] == ("hide", ["b"])


def test_the_same_segment_received_again_is_kept(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    first, again = delivery(clock, "a"), delivery(clock, "a again")
    with in_flight.watching([first]):
        in_flight.name(first, "job", "a")
        lose_a(heartbeat, in_flight, world)
        with in_flight.watching([again]):
            in_flight.name(again, "job", "a")
            heartbeat.beat()
            assert world.calls[-1] == ("hide", ["a again"])


def test_the_same_segment_of_another_job_is_kept(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    mine, other = delivery(clock, "mine"), delivery(clock, "other")
    with in_flight.watching([mine, other]):
        in_flight.name(mine, "job", "a")
        in_flight.name(other, "another job", "a")
        lose_a(heartbeat, in_flight, world)
        assert world.calls[-1] == ("hide", ["other"])


def test_a_claim_that_ended_while_it_was_renewed_is_not_lost(
    world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture, in_flight: InFlight
) -> None:
    """Its token is gone because this very worker has settled it."""

    class Settles(World):
        def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
            in_flight.release([claim("a")])
            return super().renew(claims, lease_seconds)

    settling = Settles()
    renewed = make_heartbeat(in_flight, settling, clock)
    settling.lost = {"token a"}
    message = delivery(clock, "a")
    with in_flight.watching([message]):
        in_flight.name(message, "job", "a")
        in_flight.hold([claim("a")])
        renewed.beat()
    assert not in_flight.is_lost(claim("a"))
    assert settling.calls[-1] == ("hide", ["a"])
    assert caplog.records == []


def test_a_message_that_was_let_go_while_rows_were_renewed_is_not_hidden(clock: FakeClock, in_flight: InFlight) -> None:
    """It may have been deleted, or given another visibility, in this moment."""

    class Acknowledges(World):
        def renew(self, claims: Sequence[Claimed], lease_seconds: float) -> set[str]:
            watching.__exit__(None, None, None)
            return super().renew(claims, lease_seconds)

    world = Acknowledges()
    heartbeat = make_heartbeat(in_flight, world, clock)
    watching = in_flight.watching([delivery(clock, "a")])
    watching.__enter__()
    in_flight.hold([claim("a")])
    heartbeat.beat()
    assert world.calls[-1] == ("hide", [])


def test_visibility_ends_twelve_hours_after_the_receive(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    with in_flight.watching([delivery(clock, "old")]):
        clock.now += MAX_VISIBILITY_SECONDS - 20
        with in_flight.watching([delivery(clock, "young")]):
            heartbeat.beat()
            assert world.calls[-1] == ("hide", ["old", "young"])
            assert world.seconds[0] < 20
            assert world.seconds[1] == VISIBILITY_SECONDS
            clock.now += 20
            heartbeat.beat()
            assert world.calls[-1] == ("hide", ["young"])


def test_refused_extensions_are_said_and_nothing_more(
    heartbeat: Heartbeat, world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture, in_flight: InFlight
) -> None:
    caplog.set_level(logging.INFO, "app.worker.heartbeat")
    world.refused = {0: "ReceiptHandleIsInvalid"}
    with in_flight.watching([delivery(clock, "a")]):
        in_flight.hold([claim("a")])
        heartbeat.beat()
    assert "visibility of 1 messages was not extended" in caplog.text
    assert not in_flight.is_lost(claim("a"))


def test_without_a_renewer_only_visibility_is_kept(world: World, clock: FakeClock, in_flight: InFlight) -> None:
    heartbeat = Heartbeat(in_flight, world, visibility_seconds=VISIBILITY_SECONDS, clock=clock)
    with in_flight.watching([delivery(clock, "a")]):
        heartbeat.beat()
    assert world.calls == [("hide", ["a"])]


class Beats(Stop):
    """Lets so many beats happen, without any waiting."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._count = count

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > self._count


@pytest.mark.parametrize(("error", "said"), [(OutageError("PostgreSQL", "gone"), 1), (ZeroDivisionError(), 3)])
def test_nothing_that_fails_ends_the_beats_and_an_outage_is_told_once(
    heartbeat: Heartbeat,
    world: World,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: int,
    in_flight: InFlight,
) -> None:
    world.error = error
    in_flight.hold([claim("a")])
    stop = Beats(3)
    heartbeat.run(stop)
    assert len(world.calls) == 3
    assert stop.waits == [VISIBILITY_SECONDS / 3] * 4
    assert len(caplog.records) == said


def test_what_a_hung_thread_holds_is_kept_no_more_and_the_rest_goes_on(
    heartbeat: Heartbeat, world: World, clock: FakeClock, in_flight: InFlight
) -> None:
    hung = delivery(clock, "hung")

    watching = in_flight.watching([hung])

    def hold_and_hang() -> None:
        watching.__enter__()
        in_flight.hold([claim("hung")])

    thread = threading.Thread(target=hold_and_hang)
    thread.start()
    thread.join()
    mine = delivery(clock, "mine")
    with in_flight.watching([mine]):
        in_flight.hold([claim("mine")])
        assert in_flight.abandon([thread]) == ([hung], [claim("hung")])
        heartbeat.beat()
        assert world.calls == [("renew", ["token mine"]), ("hide", ["mine"])]
        assert in_flight.snapshot() == ([mine], [claim("mine")])
    assert not in_flight.is_lost(claim("hung"))
    assert in_flight.abandon([thread]) == ([], [])
