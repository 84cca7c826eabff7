"""Ports, state and locks: what two commands at once, or one that was cut short, could get wrong."""

import socket
import stat
import threading
from pathlib import Path

import pytest

from devstack import ports, state
from devstack.errors import DevstackError, with_log
from devstack.locks import exclusive


def test_state_comes_back_as_it_was_saved_for_its_owner_only(tmp_path: Path) -> None:
    saved = state.State({"neo4j": 20001})
    state.save(tmp_path, saved)
    assert state.load(tmp_path) == saved
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_each_new_stack_has_a_password_of_its_own(tmp_path: Path) -> None:
    assert state.load(tmp_path).password != state.load(tmp_path).password


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ports": {"neo4j": "x"}, "password": "p"}', "null"])
def test_damaged_state_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DevstackError, match=r"state\.json cannot be read.*delete"):
        state.load(tmp_path)


def test_data_without_its_state_is_not_given_a_new_password(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    with pytest.raises(DevstackError, match=r"state\.json is missing"):
        state.load(tmp_path)


def test_a_chosen_port_is_free_and_not_taken() -> None:
    port = ports.choose(taken=set())
    assert ports.is_free(port)
    assert ports.LOWEST_PORT <= port <= ports.HIGHEST_PORT
    only = set(range(ports.LOWEST_PORT, ports.HIGHEST_PORT + 1)) - {port}
    with pytest.raises(OSError, match="no free port"):
        ports.choose(taken=only | {port})


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind((ports.HOST, 0))
        listener.listen()
        assert not ports.is_free(listener.getsockname()[1])


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait(10)
        with exclusive(tmp_path / "lock", "the first"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with exclusive(tmp_path / "lock", "nobody"):
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_an_error_shows_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    text = str(with_log("It ended.", log))
    assert text.startswith("It ended.\n")
    assert text.endswith("line 99")
    assert "line 50" not in text
    assert "(empty)" in str(with_log("It ended.", tmp_path / "none"))
