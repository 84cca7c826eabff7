"""Kept plans: the same answers as the plain text, planned once a connection, and a way round a pooler."""

import pytest
from sqlalchemy import Engine

from app.db.postgres import run
from app.db.prepared import Prepared
from app.errors import DataError

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


def test_a_reconnect_prepares_again(engine: Engine) -> None:
    pair = Prepared(PAIR)
    values = {"number": 1, "names": ["x"], "again": 1}
    pair.run(engine, values)
    admin = run(engine, "SELECT pg_backend_pid()")[0][0]
    with engine.connect() as other:
        other.exec_driver_sql("SELECT pg_terminate_backend(%(pid)s) WHERE pg_backend_pid() <> %(pid)s", {"pid": admin})
    assert pair.run(engine, values) == [(10, ["x"], True)]
