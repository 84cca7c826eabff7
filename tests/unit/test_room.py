"""The room that many share or one has alone: never both, and nobody waits for ever."""

import threading
from collections.abc import Callable

import pytest

from app.threads.room import Room

LIMIT_SECONDS = 20.0


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    monkeypatch.setattr("app.threads.room.STEP_SECONDS", 0.01)
    return Room()


def start(*works: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()


def test_many_share_it(room: Room) -> None:
    together = threading.Barrier(3)

    def guest() -> None:
        with room.shared():
            together.wait(LIMIT_SECONDS)

    join(start(guest, guest, guest))


def test_nobody_is_in_it_beside_one_who_has_it_alone(room: Room) -> None:
    inside: list[str] = []
    seen: list[list[str]] = []

    def work(kind: str) -> None:
        for _ in range(200):
            with room.alone() if kind == "alone" else room.shared():
                inside.append(kind)
                seen.append(list(inside))
                inside.remove(kind)

    join(start(*(lambda kind=kind: work(kind) for kind in ("alone", "shared", "alone", "shared", "shared"))))
    assert len(seen) == 1_000
    assert all(len(names) == 1 for names in seen if "alone" in names)


def test_who_waits_to_be_alone_goes_before_new_guests(room: Room) -> None:
    order: list[str] = []
    has_entered, may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with room.shared():
            has_entered.set()
            assert may_leave.wait(LIMIT_SECONDS)

    def alone() -> None:
        with room.alone():
            order.append("alone")

    def late() -> None:
        with room.shared():
            order.append("late")

    threads = start(first)
    assert has_entered.wait(LIMIT_SECONDS)
    threads += start(alone)
    while not room.waiting_alone:
        threading.Event().wait(0.005)
    threads += start(late)
    may_leave.set()
    join(threads)
    assert order == ["alone", "late"]


def test_an_error_inside_leaves_it(room: Room) -> None:
    for enter in (room.alone, room.shared):
        with pytest.raises(KeyError), enter():
            raise KeyError
    with room.alone():
        pass


def test_who_waits_says_that_it_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.threads.room.STEP_SECONDS", 0.01)
    said = threading.Event()
    room = Room(came_further=said.set)
    leave = threading.Event()

    def guest() -> None:
        with room.shared():
            assert leave.wait(LIMIT_SECONDS)

    def alone() -> None:
        with room.alone():
            pass

    threads = start(guest)
    threads += start(alone)
    assert said.wait(LIMIT_SECONDS)
    leave.set()
    join(threads)
