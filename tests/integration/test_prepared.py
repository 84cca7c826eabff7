"""Kept plans: the same answers as the plain text, planned once a connection, and a way round a pooler."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from app.db.connection import Connection
from app.db.postgres import run
from app.db.prepared import Prepared
from app.errors import DataError
from tests.support.engine import Engine

PAIR = """
SELECT %(number)s::int + 1;

SELECT %(number)s::int * 10 AS tens, %(names)s::text[] AS names, %(number)s::int = %(again)s AS same
"""


def prepared_names(engine: Engine) -> set[str]:
    return {row[0] for row in run(engine, "SELECT name FROM pg_prepared_statements")}


def test_the_last_statement_s_rows_come_back(engine: Engine) -> None:
    rows = Prepared(PAIR).run(engine, {"number": 4, "names": ["a'b", 'c"%s'], "again": 4})
    assert rows == [(40, ["a'b", 'c"%s'], True)]


def test_it_is_prepared_once_a_connection(engine: Engine) -> None:
    pair = Prepared(PAIR)
    for number in range(3):
        pair.run(engine, {"number": number, "names": [], "again": 0})
    assert len(prepared_names(engine)) == 2


def test_an_error_in_one_statement_undoes_the_others(engine: Engine) -> None:
    insert = Prepared(
        "INSERT INTO root_job (manifestation_id, total_segments) VALUES (%(name)s, %(total)s);"
        "\n\nSELECT 1 / %(zero)s::int"
    )
    with pytest.raises(DataError, match="22012"):
        insert.run(engine, {"name": "M", "total": 1, "zero": 0})
    assert run(engine, "SELECT count(*) FROM root_job") == [(0,)]
    assert insert.run(engine, {"name": "M", "total": 1, "zero": 1}) == [(1,)]


def test_on_another_server_connection_the_plain_text_is_sent(engine: Engine) -> None:
    pair = Prepared(PAIR)
    values = {"number": 1, "names": ["x"], "again": 1}
    pair.run(engine, values)
    run(engine, "DEALLOCATE ALL")
    assert pair.run(engine, values) == [(10, ["x"], True)]
    assert prepared_names(engine) == set()
    assert pair.run(engine, values) == [(10, ["x"], True)]


def test_lanes_that_are_refused_at_once_all_repeat(
    postgres_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler that passes the server's process number on: what one learns all know, and nobody fails."""
    caplog.set_level(logging.INFO, "app.db.postgres")
    lanes = 8
    engine = Engine(postgres_url, pool_size=lanes)
    pair, other = Prepared(PAIR), Prepared("SELECT 1;\n\nSELECT %(number)s::int")
    values = {"number": 1, "names": ["x"], "again": 1}
    together = threading.Barrier(lanes)
    this_lane = threading.local()

    lend = engine.pool.lend

    @contextmanager
    def lend_and_meet() -> Iterator[Connection]:
        with lend() as connection:
            if getattr(this_lane, "meets_others", False):
                this_lane.meets_others = False
                together.wait(60)
            yield connection

    monkeypatch.setattr(engine.pool, "lend", lend_and_meet)

    def beside_the_others[T](work: Callable[[], T]) -> T:
        """While each lane has a connection of its own; a repeat takes whichever is free."""
        this_lane.meets_others = True
        answer = work()
        together.wait(60)
        return answer

    def lane(_: int) -> list[Any]:
        beside_the_others(lambda: pair.run(engine, values))
        beside_the_others(lambda: run(engine, "DEALLOCATE ALL"))
        return beside_the_others(lambda: pair.run(engine, values))

    with ThreadPoolExecutor(lanes) as threads:
        assert list(threads.map(lane, range(lanes))) == [[(10, ["x"], True)]] * lanes
    assert other.run(engine, {"number": 5}) == [(5,)]
    assert prepared_names(engine) == set()
    assert caplog.text.count("keeps no prepared statements") == 1
    engine.dispose()


def test_a_statement_prepared_by_another_is_no_failure(postgres_url: str) -> None:
    """The other refusal: a server connection on which another of our connections has prepared."""
    engine = Engine(postgres_url, pool_size=1)
    values = {"number": 1, "names": ["x"], "again": 1}
    Prepared(PAIR).run(engine, values)
    with engine.pool.lend() as connection:
        assert len(connection.prepared) == 1
        connection.prepared.clear()
    assert Prepared(PAIR).run(engine, values) == [(10, ["x"], True)]
    engine.dispose()


def test_plans_that_suit_small_tables_are_ruled_out_while_it_runs_and_no_longer(postgres_url: str) -> None:
    engine = Engine(postgres_url, pool_size=1)
    names = ("plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin")
    shown = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    assert Prepared("SELECT 1;\n\n" + shown).run(engine, {}) == [("force_generic_plan", "off", "off", "off")]
    assert run(engine, shown) == [("auto", "on", "on", "on")]
    engine.dispose()


def test_a_lock_time_out_of_one_s_own_is_kept(engine: Engine) -> None:
    shown = Prepared(
        "SELECT 1;\n\nSELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement"
    )
    assert shown.run(engine, {}) == [("10s", "30s")]
    assert shown.run(engine, {}, lock_timeout_ms=300) == [("300ms", "30s")]


@pytest.mark.parametrize("keeps_plans", [True, False])
def test_only_what_need_not_last_is_answered_before_it_is_on_disk(postgres_url: str, keeps_plans: bool) -> None:
    engine = Engine(postgres_url, pool_size=1)
    if not keeps_plans:
        engine.stop_keeping_plans()
    shown = "SELECT current_setting('synchronous_commit') AS commit"
    assert Prepared(shown, is_lasting=False).run(engine, {}) == [("off",)]
    assert Prepared(shown).run(engine, {}) == [("on",)]
    engine.dispose()


def test_a_reconnect_prepares_again(engine: Engine) -> None:
    pair = Prepared(PAIR)
    values = {"number": 1, "names": ["x"], "again": 1}
    pair.run(engine, values)
    admin = run(engine, "SELECT pg_backend_pid()")[0][0]
    with engine.connect() as other:
        other.exec_driver_sql("SELECT pg_terminate_backend(%(pid)s) WHERE pg_backend_pid() <> %(pid)s", {"pid": admin})
    assert pair.run(engine, values) == [(10, ["x"], True)]
