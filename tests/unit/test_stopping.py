"""The flag that ends everything."""

import signal
import threading

from app.threads.stopping import Stop
from tests.support.worker import wait_until

FOREVER_SECONDS = 3_600.0


def test_it_is_set_once_and_stays_set() -> None:
    stop = Stop()
    assert not stop.is_set()
    stop.set()
    stop.set()
    assert stop.is_set()


def test_a_wait_ends_by_itself() -> None:
    assert Stop().wait(0.0) is False
    assert Stop().wait(0.001) is False


def test_a_wait_ends_at_once_when_it_is_set() -> None:
    stop = Stop()
    stop.set()
    assert stop.wait(FOREVER_SECONDS) is True


def test_waiting_threads_are_let_go() -> None:
    stop = Stop()
    threads = [threading.Thread(target=stop.wait, args=(FOREVER_SECONDS,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.set()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), "the threads to end", 30)


def test_a_signal_handler_may_set_it_while_its_own_thread_waits() -> None:
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        threading.Timer(0.05, signal.raise_signal, [signal.SIGUSR1]).start()
        assert stop.wait(FOREVER_SECONDS) is True
    finally:
        signal.signal(signal.SIGUSR1, before)
