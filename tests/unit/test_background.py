"""What nobody waits for: beside the caller, one piece at a time."""

import logging
import threading

import pytest

from app.threads.background import Background

LIMIT_SECONDS = 10


def test_the_caller_goes_on_while_the_work_is_done() -> None:
    may_end, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert may_end.wait(LIMIT_SECONDS)
        ended.set()

    Background("x")(work)
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(LIMIT_SECONDS)


def test_while_one_piece_is_under_way_the_caller_does_the_next_himself() -> None:
    may_end, threads = threading.Event(), []
    beside = Background("x")
    beside(lambda: threads.append(threading.current_thread()) if may_end.wait(LIMIT_SECONDS) else None)
    beside(lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]
    may_end.set()


def test_a_failure_is_logged_and_the_next_piece_is_done_beside_again(caplog: pytest.LogCaptureFixture) -> None:
    beside = Background("sharing pages")
    threads: list[threading.Thread] = []
    began = threading.Event()

    def fail() -> None:
        threads.append(threading.current_thread())
        began.set()
        raise ValueError

    with caplog.at_level(logging.ERROR):
        for number in range(2):
            beside(fail)
            assert began.wait(LIMIT_SECONDS)
            began.clear()
            threads[number].join(LIMIT_SECONDS)
    assert [thread.name for thread in threads] == ["sharing pages"] * 2
    assert [record.getMessage() for record in caplog.records] == ["sharing pages failed"] * 2


def test_without_a_thread_to_be_had_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    beside = Background("x")
    threads: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        beside(lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]
    done = threading.Event()

    def work() -> None:
        threads.append(threading.current_thread())
        done.set()

    beside(work)
    assert done.wait(LIMIT_SECONDS)
    assert threads[1] is not threads[0]
