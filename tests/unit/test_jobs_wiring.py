"""The parts of the producer's side, asked for by many threads at once as HTTP requests do."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.db.postgres import Database
from app.jobs.wiring import LazyParts

THREADS = 8


def at_once[T](ask: Callable[[], T]) -> list[T]:
    """What `ask` gives to each of several threads that begin together."""
    together = threading.Barrier(THREADS)
    answers: list[T] = []

    def run() -> None:
        together.wait(30)
        answers.append(ask())

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == THREADS
    return answers


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every database that was opened; making one takes as long as other threads need to ask for it too."""
    opened: list[object] = []
    others = threading.Event()

    def slow(*arguments: Any, **keywords: Any) -> Any:
        others.wait(0.3)
        opened.append(Database(*arguments, **keywords))
        return opened[-1]

    monkeypatch.setattr("app.jobs.wiring.Database", slow)
    monkeypatch.setenv("POSTGRES_URL", "postgresql://me:pw@127.0.0.1:1/db")
    monkeypatch.setenv("SQS_QUEUE_URL", "http://127.0.0.1:1/1/segments")
    return opened


def test_first_requests_at_the_same_time_open_one_database(made: list[object]) -> None:
    parts = LazyParts()
    assert len({id(database) for database in at_once(lambda: parts.database)}) == 1
    assert len(made) == 1


def test_parts_that_are_made_of_parts_are_made_once(made: list[object]) -> None:
    parts = LazyParts()
    assert len({id(producer) for producer in at_once(lambda: parts.producer)}) == 1
    assert len(made) == 1
