"""Waiting for what a worker needs, side by side."""

from concurrent.futures import Future

import pytest

from app.errors import ConfigurationError, OutageError
from app.threads.stopping import Stop
from app.worker.startup import at_once, persist

LIMIT_SECONDS = 30


def test_all_are_begun_before_the_first_has_ended() -> None:
    greeting: Future[str] = Future()
    assert at_once(lambda _: greeting.result(LIMIT_SECONDS), lambda _: greeting.set_result("hello"), stop=Stop()) == (
        "hello"
    )


def test_what_cannot_be_mended_by_waiting_ends_the_waiting_for_others() -> None:
    gave_up: Future[bool] = Future()

    def wait_in_vain(until: Stop) -> None:
        def ask() -> None:
            raise OutageError("PostgreSQL", "it is down")

        persist(ask, "PostgreSQL", until)
        gave_up.set_result(until.is_set())

    def refuse(_: Stop) -> None:
        raise ConfigurationError("no such queue")

    stop = Stop()
    with pytest.raises(ConfigurationError, match="no such queue"):
        at_once(refuse, wait_in_vain, stop=stop)
    assert gave_up.result(LIMIT_SECONDS)
    assert not stop.is_set()


def test_a_stop_ends_the_waiting_of_all() -> None:
    stop = Stop()
    assert at_once(lambda until: until.wait(LIMIT_SECONDS), lambda _: stop.set(), stop=stop)
