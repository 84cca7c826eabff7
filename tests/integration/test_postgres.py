"""One transaction a call, repeated when it lost and nobody is to blame; a vendor's errors in our words."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from app.db import postgres
from app.db.checks import expect_tables, missing_tables, ping
from app.db.claims import PostgresClaims
from app.db.connection import Connection
from app.db.postgres import run
from app.db.results import PostgresResults
from app.errors import ConfigurationError, DataError, OutageError, SchemaError, StatementTimeoutError, TransientError
from app.threads.stopping import Stop
from app.worker.startup import persist
from tests.support.engine import Engine
from tests.support.worker import wait_until

BEHIND = "SELECT pid FROM pg_stat_activity WHERE %(pid)s = ANY(pg_blocking_pids(pid))"


@pytest.fixture
def start() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a call in a thread of its own."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit


@pytest.fixture
def repeats(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was said about repeated transactions."""
    caplog.set_level(logging.DEBUG, "app.db.postgres")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "app.db.postgres"]


def wait_for_behind(engine: Engine, pid: int, count: int) -> list[int]:
    """Wait until so many statements wait for a lock of `pid`; their processes."""
    wait_until(lambda: len(run(engine, BEHIND, {"pid": pid})) == count, f"{count} statements to wait")
    return [row[0] for row in run(engine, BEHIND, {"pid": pid})]


def test_several_statements_are_one_transaction(engine: Engine) -> None:
    run(engine, "CREATE TABLE things (number int CHECK (number < 10))")
    with pytest.raises(DataError):
        run(engine, "INSERT INTO things VALUES (1); INSERT INTO things VALUES (11)")
    assert run(engine, "INSERT INTO things VALUES (2); SELECT number FROM things") == [(2,)]


def test_a_lost_deadlock_is_repeated_and_nobody_hears_of_it(
    engine: Engine, start: Callable[..., Future[Any]], repeats: Callable[[], list[str]]
) -> None:
    """Each holds one lock and waits behind a bystander; then each wants what the other has."""
    steps = "SET LOCAL deadlock_timeout = '20ms'; SELECT pg_advisory_xact_lock({}); " + (
        "SELECT pg_advisory_xact_lock_shared(3); SELECT pg_advisory_xact_lock({}); SELECT {}"
    )
    with engine.connect() as bystander:
        pid = bystander.exec_driver_sql("SELECT pg_backend_pid() FROM pg_advisory_lock(3)").scalar_one()
        both = [start(run, engine, steps.format(1, 2, 10)), start(run, engine, steps.format(2, 1, 20))]
        wait_for_behind(engine, pid, 2)
        bystander.exec_driver_sql("SELECT pg_advisory_unlock(3)")
        assert [done.result() for done in both] == [[(10,)], [(20,)]]
    assert repeats() == ["Repeating a transaction after 40P01"]


def test_a_deadlock_that_never_ends_is_transient(engine: Engine, repeats: Callable[[], list[str]]) -> None:
    with pytest.raises(TransientError, match="40P01") as raised:
        run(engine, "DO $$BEGIN RAISE 'lost' USING errcode = '40P01'; END$$")
    assert not isinstance(raised.value, OutageError)
    assert len(repeats()) == postgres.MAX_REPEATS - 1


def test_a_cut_connection_is_repeated_once(
    engine: Engine, start: Callable[..., Future[Any]], repeats: Callable[[], list[str]]
) -> None:
    with engine.connect() as bystander:
        pid = bystander.exec_driver_sql("SELECT pg_backend_pid() FROM pg_advisory_lock(3)").scalar_one()
        done = start(run, engine, "SELECT pg_advisory_xact_lock(3); SELECT 7")
        (victim,) = wait_for_behind(engine, pid, 1)
        run(engine, "SELECT pg_terminate_backend(%(pid)s)", {"pid": victim})
        wait_until(lambda: run(engine, BEHIND, {"pid": pid}) not in ([], [(victim,)]), "the repeat to wait")
        bystander.exec_driver_sql("SELECT pg_advisory_unlock(3)")
        assert done.result() == [(7,)]
    assert len(repeats()) == 1


def test_a_connection_cut_twice_is_an_outage(engine: Engine, start: Callable[..., Future[Any]]) -> None:
    with engine.connect() as bystander:
        pid = bystander.exec_driver_sql("SELECT pg_backend_pid() FROM pg_advisory_lock(3)").scalar_one()
        done = start(run, engine, "SELECT pg_advisory_xact_lock(3); SELECT 7")
        (first,) = wait_for_behind(engine, pid, 1)
        run(engine, "SELECT pg_terminate_backend(%(pid)s)", {"pid": first})
        wait_until(lambda: run(engine, BEHIND, {"pid": pid}) not in ([], [(first,)]), "the repeat to wait")
        ((second,),) = run(engine, BEHIND, {"pid": pid})
        run(engine, "SELECT pg_terminate_backend(%(pid)s)", {"pid": second})
        with pytest.raises(OutageError, match="PostgreSQL does not answer"):
            done.result()
        bystander.exec_driver_sql("SELECT pg_advisory_unlock(3)")


def test_idle_connections_that_are_all_cut_cost_one_repeat(engine: Engine, repeats: Callable[[], list[str]]) -> None:
    with ExitStack() as borrowed:
        lent = [borrowed.enter_context(engine.pool.lend()) for _ in range(3)]
        pids = [connection.info.backend_pid for connection in lent]
    with engine.connect() as bystander:
        bystander.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM unnest(%(pids)s) AS p (pid)", {"pids": pids})
    assert run(engine, "SELECT 7") == [(7,)]
    assert len(repeats()) == 1


@pytest.mark.parametrize("leave", [lambda each: each.cursor().execute("BEGIN"), lambda each: each.close()])
def test_what_is_left_open_or_closed_is_not_lent_again(engine: Engine, leave: Callable[[Connection], None]) -> None:
    with engine.pool.lend() as connection:
        leave(connection)
    with engine.pool.lend() as another:
        assert another is not connection
    assert connection.closed


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT '{'::jsonb", DataError),
        ("SELECT E'\\\\u0000'::text, '\"\\u0000\"'::jsonb", DataError),
        ("SELECT 9223372036854775807 + 1", DataError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '54000'; END$$", DataError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '23514'; END$$", DataError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '57014'; END$$", StatementTimeoutError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '55P03'; END$$", StatementTimeoutError),
        ("DO $$BEGIN RAISE 'x' USING errcode = 'XX000'; END$$", TransientError),
        ("SELECT no_such_column", SchemaError),
        ("SELECT 1 FROM no_such_table", SchemaError),
        ("SELECT no_such_function()", SchemaError),
        ("SELECT FROM FROM", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '42501'; END$$", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '53100'; END$$", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '58030'; END$$", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '57P03'; END$$", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '53300'; END$$", OutageError),
        ("DO $$BEGIN RAISE 'x' USING errcode = '25006'; END$$", OutageError),
    ],
)
def test_the_kind_of_a_failure_is_told_by_its_sqlstate(engine: Engine, sql: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        run(engine, sql)
    assert type(raised.value) is kind


def test_every_wait_is_bounded(engine: Engine) -> None:
    limits = "SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement"
    assert run(engine, limits) == [("10s", "30s")]
    assert run(engine, "SELECT 1; " + limits, lock_timeout_ms=250) == [("250ms", "30s")]


def test_a_wait_for_a_lock_ends(engine: Engine) -> None:
    with engine.connect() as holder:
        holder.exec_driver_sql("SELECT pg_advisory_lock(3)")
        with pytest.raises(StatementTimeoutError, match="55P03"):
            run(engine, "SELECT 1; SELECT pg_advisory_xact_lock(3)", lock_timeout_ms=50)
        holder.exec_driver_sql("SELECT pg_advisory_unlock(3)")


def test_nothing_that_is_set_outlives_its_transaction(postgres_url: str) -> None:
    """Behind a pooler the next transaction on this connection is a stranger's."""
    engine = Engine(postgres_url, pool_size=1)
    run(engine, "SELECT 1", lock_timeout_ms=250)
    PostgresClaims(engine, "worker", 5).check()
    PostgresResults(engine).check()
    with pytest.raises(DataError):
        run(engine, "SELECT 1 / 0")
    with engine.pool.lend() as connection, connection.cursor() as cursor:
        assert connection.prepared
        cursor.execute("SELECT name, setting FROM pg_settings WHERE source = 'session'")
        changed = cursor.fetchall()
    engine.dispose()
    assert changed == []


def test_a_refused_result_is_not_shown(engine: Engine) -> None:
    """PostgreSQL repeats a part of it in the lines after the first."""
    with pytest.raises(DataError) as raised:
        run(engine, "SELECT length('the statement'), %(result)s::jsonb", {"result": '{"the result'})
    assert "the statement" not in str(raised.value)
    assert "the result" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.rsplit("/", 1)[0] + "/no_such_database",
        lambda url: url.replace("@", "wrong@", 1),
        lambda url: url.rsplit("@", 1)[0] + "@127.0.0.1:1/segments",
    ],
    ids=["database", "password", "port"],
)
def test_a_server_that_does_not_let_us_in_is_an_outage(postgres_url: str, change: Callable[[str], str]) -> None:
    engine = Engine(change(postgres_url), pool_size=1)
    with pytest.raises(OutageError) as raised:
        ping(engine)
    assert postgres_url.split(":")[2].split("@")[0] not in str(raised.value)


def test_a_standby_that_only_reads_is_down(engine: Engine) -> None:
    ping(engine)
    name = engine.url.database
    run(engine, "CREATE FUNCTION pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    run(engine, f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog')
    engine.dispose()
    with pytest.raises(OutageError, match="read-only"):
        ping(engine)


def test_a_server_that_only_reads_is_down(engine: Engine) -> None:
    name = engine.url.database
    run(engine, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    engine.dispose()
    with pytest.raises(OutageError, match="only reads"):
        ping(engine)
    with pytest.raises(OutageError, match=r"does not do its work: .*25006"):
        run(engine, "SELECT 1; INSERT INTO root_job (manifestation_id, total_segments) VALUES ('M', 1)")
    run(engine, f'SET LOCAL transaction_read_only = off; ALTER DATABASE "{name}" RESET default_transaction_read_only')
    engine.dispose()
    ping(engine)


@pytest.fixture
def role(engine: Engine) -> Iterator[Callable[[], Engine]]:
    """Makes engines of a user without any right of its own; its name is `somebody`."""
    run(engine, "DROP ROLE IF EXISTS somebody; CREATE ROLE somebody LOGIN PASSWORD 'secret'")
    engines: list[Engine] = []

    def make() -> Engine:
        url = engine.url.set(username="somebody", password="secret").render_as_string(hide_password=False)
        engines.append(Engine(url, pool_size=1))
        return engines[-1]

    yield make
    for each in engines:
        each.dispose()
    run(engine, "DROP OWNED BY somebody; DROP ROLE somebody")


def what_the_start_says(engine: Engine) -> str:
    with pytest.raises(OutageError) as raised:
        expect_tables(engine, PostgresClaims(engine, "worker", 5), PostgresResults(engine))
    assert "does not answer" not in str(raised.value)
    return raised.value.reason


def test_a_right_that_is_missing_is_named_and_no_migration_advised(engine: Engine, role: Callable[[], Engine]) -> None:
    somebody = role()
    assert what_the_start_says(somebody) == "permission denied for table segment_task (42501)"
    run(engine, "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO somebody")
    assert what_the_start_says(somebody) == "permission denied for table completion_outbox (42501)"
    run(engine, "GRANT ALL ON ALL TABLES IN SCHEMA public TO somebody; REVOKE USAGE ON SCHEMA public FROM public")
    said = what_the_start_says(somebody)
    assert "are in the schema public" in said
    assert "GRANT USAGE" in said
    assert "alembic" not in said


def test_a_database_that_may_not_be_entered_is_refused(engine: Engine, role: Callable[[], Engine]) -> None:
    run(engine, f'REVOKE CONNECT ON DATABASE "{engine.url.database}" FROM public')
    with pytest.raises(ConfigurationError, match=r"PostgreSQL refuses: .*permission denied for database"):
        persist(lambda: ping(role()), "PostgreSQL", Stop())


def test_tables_of_another_version_are_waited_for_by_what_they_lack(engine: Engine) -> None:
    run(engine, "ALTER TABLE segment_task RENAME COLUMN claim_token TO token")
    said = what_the_start_says(engine)
    assert "claim_token does not exist" in said
    assert said.endswith("run: alembic upgrade head")


def test_a_table_that_is_locked_is_not_said_to_be_another(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_TIMEOUT_MS", 100)
    with engine.connect() as holder:
        holder.exec_driver_sql("BEGIN; LOCK TABLE segment_task IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StatementTimeoutError) as raised:
            expect_tables(engine, PostgresClaims(engine, "worker", 5), PostgresResults(engine))
        holder.exec_driver_sql("ROLLBACK")
    assert "alembic" not in str(raised.value)


def test_waiting_says_the_reason_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    stop = Stop()

    def step() -> None:
        stop.set()
        raise OutageError("PostgreSQL", "it is full", answers=True)

    assert persist(step, "PostgreSQL", stop) is None
    assert [record.getMessage() for record in caplog.records] == ["Waiting for PostgreSQL: it is full"]


def test_missing_tables_are_named(engine: Engine) -> None:
    assert missing_tables(engine) == []
    run(engine, "DROP TABLE completion_outbox")
    assert missing_tables(engine) == ["completion_outbox"]
