"""The gate and its prober: said once, probed by one, ever slower, not fooled by a service that comes and goes."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from app.errors import OutageError, TransientError
from app.threads.gate import Gate
from app.threads.stopping import Stop
from app.worker.prober import FIRST_PROBE_SECONDS, RELAPSE_SECONDS, SLOWEST_PROBE_SECONDS, Prober
from tests.support.fakes import FakeClock
from tests.support.worker import wait_until


class Waits(Stop):
    """Waits for nothing, and notes for how long it was meant to; set after so many waits."""

    def __init__(self, clock: FakeClock | None = None, most: int = 1_000) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._clock = clock or FakeClock()
        self._most = most

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self._clock.now += seconds
        if len(self.waits) >= self._most:
            self.set()
        return self.is_set()


class Service:
    """Fails its probes so often before it answers."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures = failures
        self.probes = 0
        self._error = error or OutageError("Neo4j", "refused")

    def __call__(self) -> None:
        self.probes += 1
        if self.failures > 0:
            self.failures -= 1
            raise self._error


class Guarded:
    """A gate with its prober."""

    def __init__(self, probes: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.monotonic) -> None:
        self.gate = Gate(clock=clock)
        self.close = self.gate.close
        self.wait_until_open = Prober(self.gate, probes, clock=clock).wait_until_open

    @property
    def is_open(self) -> bool:
        return self.gate.is_open


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Which way each WARNING went."""
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return ["down" if "is down" in text else "back" if "is back" in text else text for text in warnings]


def test_it_is_open_until_something_is_found_down() -> None:
    gate = Guarded({"Neo4j": Service()})
    assert gate.is_open
    assert gate.wait_until_open(Stop())
    gate.close("Neo4j", "refused")
    assert not gate.is_open


def test_an_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(failures=5)
    gate = Guarded({"Neo4j": service})
    for _ in range(10):
        gate.close("Neo4j", "refused")
    assert gate.wait_until_open(Waits())
    assert gate.is_open
    assert service.probes == 6
    assert said(caplog) == ["down", "back"]
    assert "Neo4j is down, receiving is paused: refused" in caplog.text


def test_found_down_again_while_it_is_down_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate = Guarded({"Neo4j": lambda: gate.close("Neo4j", "again") if not gate.is_open else None})
    gate.close("Neo4j", "refused")
    assert gate.wait_until_open(Waits())
    assert said(caplog) == ["down", "back"]


def test_probes_come_slower_and_slower() -> None:
    stop = Waits()
    gate = Guarded({"Neo4j": Service(failures=9)})
    gate.close("Neo4j", "refused")
    gate.wait_until_open(stop)
    expected = [min(FIRST_PROBE_SECONDS * 2**at, SLOWEST_PROBE_SECONDS) for at in range(10)]
    assert all(0.7 * most <= wait <= most for wait, most in zip(stop.waits, expected, strict=True))


def outage(gate: Guarded, stop: Waits) -> float:
    """One outage; how long it was waited before its first probe."""
    before = len(stop.waits)
    gate.close("Neo4j", "refused")
    gate.wait_until_open(stop)
    return stop.waits[before]


def test_a_relapse_is_probed_no_faster_than_before() -> None:
    clock, service = FakeClock(), Service(failures=4)
    stop, gate = Waits(clock), Guarded({"Neo4j": service}, clock=clock)
    outage(gate, stop)
    clock.now += RELAPSE_SECONDS - 1
    assert outage(gate, stop) >= 0.7 * SLOWEST_PROBE_SECONDS


def test_a_later_outage_is_a_new_one() -> None:
    clock, service = FakeClock(), Service(failures=4)
    stop, gate = Waits(clock), Guarded({"Neo4j": service}, clock=clock)
    outage(gate, stop)
    clock.now += RELAPSE_SECONDS
    assert outage(gate, stop) <= FIRST_PROBE_SECONDS


def test_everything_must_be_back(caplog: pytest.LogCaptureFixture) -> None:
    services = {"Neo4j": Service(failures=1), "PostgreSQL": Service(failures=3)}
    gate = Guarded(services)
    for name in services:
        gate.close(name, "refused")
    assert gate.wait_until_open(Waits())
    assert (services["Neo4j"].probes, services["PostgreSQL"].probes) == (2, 4)
    assert said(caplog) == ["down", "down", "back", "back"]


def test_what_fails_otherwise_than_by_an_outage_is_still_down() -> None:
    service = Service(failures=2, error=TransientError("too many connections"))
    gate = Guarded({"PostgreSQL": service})
    gate.close("PostgreSQL", "refused")
    assert gate.wait_until_open(Waits())
    assert service.probes == 3


def test_a_service_without_a_probe_is_tried_again_after_a_while() -> None:
    gate = Guarded({})
    gate.close("something", "refused")
    assert gate.wait_until_open(Waits())


def test_stopping_ends_the_waiting_and_opens_nothing() -> None:
    service = Service(failures=1_000)
    gate = Guarded({"Neo4j": service})
    gate.close("Neo4j", "refused")
    assert gate.wait_until_open(Waits(most=3)) is False
    assert service.probes == 2
    assert not gate.is_open


def test_a_bug_in_a_probe_does_not_keep_the_others_from_probing() -> None:
    service = Service(failures=1, error=ZeroDivisionError())
    gate = Guarded({"Neo4j": service})
    gate.close("Neo4j", "refused")
    with pytest.raises(ZeroDivisionError):
        gate.wait_until_open(Waits())
    assert gate.wait_until_open(Waits())


def test_one_probes_and_all_the_others_wait() -> None:
    """The probe hangs until every thread had its chance to probe, too."""
    answered, inside = threading.Event(), []

    def probe() -> None:
        inside.append(threading.current_thread().name)
        answered.wait(60)

    gate = Guarded({"Neo4j": probe})
    gate.close("Neo4j", "refused")
    opened: list[bool] = []
    threads = [Waiter(gate, opened.append) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(thread.turns > 2 for thread in threads if thread.name not in inside), "others to wait")
    assert len(inside) == 1
    answered.set()
    for thread in threads:
        thread.join(60)
    assert opened == [True] * 5
    assert len(inside) == 1


class Waiter(threading.Thread):
    """Waits for the gate; counts how often it looked whether it is to stop."""

    def __init__(self, gate: Guarded, tell: Callable[[bool], None]) -> None:
        super().__init__(daemon=True)
        self.turns = 0
        self._gate = gate
        self._tell = tell

    def run(self) -> None:
        self._tell(self._gate.wait_until_open(Turns(self)))


class Turns(Waits):
    def __init__(self, waiter: Waiter) -> None:
        super().__init__()
        self._waiter = waiter

    def is_set(self) -> bool:
        self._waiter.turns += 1
        return super().is_set()
