"""Waiting for what a worker needs, side by side."""

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from app.errors import ConfigurationError, OutageError
from app.threads.stopping import Stop
from app.worker.startup import SideBySide, persist

LIMIT_SECONDS = 30


def test_all_are_begun_before_the_first_has_ended() -> None:
    greeting: Future[str] = Future()
    with SideBySide(Stop()) as steps:
        heard = steps.begin(lambda _: greeting.result(LIMIT_SECONDS))
        steps.begin(lambda _: greeting.set_result("hello"))
    assert heard.result(0) == "hello"


def test_a_step_goes_on_while_others_are_still_to_be_begun() -> None:
    with SideBySide(Stop()) as steps:
        assert steps.begin(lambda _: "done").result(LIMIT_SECONDS) == "done"
        assert steps.begin(lambda _: "too").result(LIMIT_SECONDS) == "too"


@pytest.fixture
def gave_up() -> Future[bool]:
    return Future()


@pytest.fixture
def wait_in_vain(gave_up: Future[bool]) -> Callable[[Stop], None]:
    def step(until: Stop) -> None:
        def ask() -> None:
            raise OutageError("PostgreSQL", "it is down")

        persist(ask, "PostgreSQL", until)
        gave_up.set_result(until.is_set())

    return step


def refuse(_: Stop) -> None:
    raise ConfigurationError("no such queue")


def test_what_cannot_be_mended_by_waiting_ends_the_waiting_for_others(
    gave_up: Future[bool], wait_in_vain: Callable[[Stop], None]
) -> None:
    def both() -> None:
        with SideBySide(stop) as steps:
            steps.begin(wait_in_vain)
            steps.begin(refuse)

    stop = Stop()
    with pytest.raises(ConfigurationError, match="no such queue"):
        both()
    assert gave_up.result(LIMIT_SECONDS)
    assert not stop.is_set()


def test_so_does_an_error_of_who_begins_them(gave_up: Future[bool], wait_in_vain: Callable[[Stop], None]) -> None:
    def begin_and_fail() -> None:
        with SideBySide(Stop()) as steps:
            steps.begin(wait_in_vain)
            refuse(Stop())

    with pytest.raises(ConfigurationError, match="no such queue"):
        begin_and_fail()
    assert gave_up.result(LIMIT_SECONDS)


def test_a_stop_ends_the_waiting_of_all() -> None:
    stop = Stop()
    with SideBySide(stop) as steps:
        waited = steps.begin(lambda until: until.wait(LIMIT_SECONDS))
        steps.begin(lambda _: stop.set())
    assert waited.result(0)
