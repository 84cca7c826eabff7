"""The migrations: up, down, twice at once, and never over tables that somebody else has made."""

import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from app.db.postgres import run
from tests.support.engine import Engine
from tests.support.services import ROOT, base_environment, migrate
from tests.support.worker import wait_until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
SCHEMA = """
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'function', proname, prosrc, '', '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', ''
FROM pg_trigger WHERE NOT tgisinternal
ORDER BY 1, 2, 3
"""


def schema(url: str) -> list[tuple[Any, ...]]:
    """Everything that stands in the schema `public`."""
    engine = Engine(url, pool_size=1)
    found = [tuple(row) for row in run(engine, SCHEMA)]
    engine.dispose()
    return found


def tables_in(url: str) -> set[str]:
    return {row[1] for row in schema(url) if row[0] == "column"}


def test_up_down_up_and_nothing_left_to_do(bare_postgres_url: str) -> None:
    assert migrate(bare_postgres_url, "upgrade", "head").returncode == 0
    first = schema(bare_postgres_url)
    assert tables_in(bare_postgres_url) == {
        "root_job",
        "segment_task",
        "completion_outbox",
        "idempotency_key",
        "alembic_version",
    }
    assert migrate(bare_postgres_url, "downgrade", "base").returncode == 0
    assert {row[1] for row in schema(bare_postgres_url)} == {"alembic_version"}
    assert migrate(bare_postgres_url, "upgrade", "head").returncode == 0
    assert schema(bare_postgres_url) == first
    check = migrate(bare_postgres_url, "check")
    assert (check.returncode, "No new upgrade operations" in check.stdout + check.stderr) == (0, True)


ROWS_OF_0001 = """
INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, failed_segments, status)
VALUES ('00000000-0000-0000-0000-000000000001', 'M', 5, 1, 1, 'IN_PROGRESS');
INSERT INTO segment_task (job_id, segment_id, status, created_at, last_sent_at, send_count)
SELECT '00000000-0000-0000-0000-000000000001', id, status, '2026-01-01 00:00+00', sent_at::timestamptz, sends
FROM (VALUES ('new', 'QUEUED', NULL, 0), ('sent', 'IN_PROGRESS', '2026-01-01 01:00+00', 2),
             ('often', 'RETRYING', '2026-01-01 01:00+00', 60), ('done', 'COMPLETED', NULL, 0),
             ('lost', 'FAILED', NULL, 0)) AS v (id, status, sent_at, sends)
"""
ENDINGS = "UPDATE segment_task SET status = 'QUEUED' WHERE status IN ('COMPLETED', 'FAILED')"


def test_a_database_with_work_in_it_goes_up_and_down_and_up(bare_postgres_url: str) -> None:
    """What is unfinished is sent again when the sweep of before would have, and requeueing counts right in both."""
    url = bare_postgres_url
    assert migrate(url, "upgrade", "0001").returncode == 0
    old = schema(url)
    engine = Engine(url, pool_size=1)
    run(engine, ROWS_OF_0001)
    assert migrate(url, "upgrade", "head").returncode == 0
    new = schema(url)
    assert run(
        engine,
        "SELECT segment_id, next_send_at - '2026-01-01 00:00+00'::timestamptz, claimed_alone, settled_token"
        " FROM segment_task ORDER BY segment_id",
    ) == [
        ("done", None, False, None),
        ("lost", None, False, None),
        ("new", timedelta(minutes=15), False, None),
        ("often", timedelta(minutes=60 + 15 * 2**10), False, None),
        ("sent", timedelta(minutes=60 + 15 * 4), False, None),
    ]
    assert migrate(url, "downgrade", "0001").returncode == 0
    assert schema(url) == old
    counters = "SELECT completed_segments, failed_segments, status FROM root_job"
    assert run(engine, ENDINGS + "; " + counters) == [(0, 0, "IN_PROGRESS")]
    assert migrate(url, "upgrade", "head").returncode == 0
    assert schema(url) == new
    run(engine, "UPDATE segment_task SET status = 'COMPLETED'; UPDATE root_job SET completed_segments = 5")
    assert run(engine, ENDINGS + "; " + counters) == [(0, 0, "IN_PROGRESS")]
    assert run(engine, "SELECT count(*) FROM segment_task WHERE next_send_at IS NULL") == [(0,)]
    engine.dispose()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line that it said, having failed."""
    assert done.returncode not in (0, None)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("arguments", [("upgrade", "head"), ("current",), ("check",)], ids=" ".join)
def test_postgres_that_does_not_answer_is_one_line(arguments: tuple[str, ...]) -> None:
    said = one_line(migrate("postgresql://somebody:hunter2@127.0.0.1:1/segments", *arguments))
    assert said.startswith("PostgreSQL does not answer: ")
    assert "hunter2" not in said


def test_postgres_that_refuses_is_one_line(bare_postgres_url: str) -> None:
    said = one_line(migrate(bare_postgres_url.replace("@", "wrong@", 1), "upgrade", "head"))
    assert "password authentication failed" in said
    missing = bare_postgres_url.rsplit("/", 1)[0] + "/no_such_database"
    assert "does not exist" in one_line(migrate(missing, "upgrade", "head"))


def test_postgres_that_only_reads_is_one_line(bare_postgres_url: str) -> None:
    engine = Engine(bare_postgres_url, pool_size=1)
    run(engine, f'ALTER DATABASE "{engine.url.database}" SET default_transaction_read_only = on')
    engine.dispose()
    assert "25006" in one_line(migrate(bare_postgres_url, "upgrade", "head"))


@pytest.mark.parametrize("table", ["root_job", "segment_task", "completion_outbox"])
def test_foreign_tables_stop_the_first_migration(bare_postgres_url: str, table: str) -> None:
    engine = Engine(bare_postgres_url, pool_size=1)
    run(engine, f"CREATE TABLE {table} (id int); INSERT INTO {table} VALUES (7)")
    before = schema(bare_postgres_url)
    done = migrate(bare_postgres_url, "upgrade", "head")
    assert done.returncode != 0
    assert f"already has {table}" in done.stderr
    assert "Traceback" not in done.stderr
    assert schema(bare_postgres_url) == before
    assert run(engine, f"SELECT id FROM {table}") == [(7,)]
    engine.dispose()


@pytest.mark.parametrize("value", [None, "mysql://somebody:hunter2@localhost/db"])
def test_alembic_needs_postgres_url_and_nothing_else(tmp_path: Path, value: str | None) -> None:
    """In another folder, where no .env of a developer is read."""
    environment = base_environment() | ({"POSTGRES_URL": value} if value else {})
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("POSTGRES_URL") == 1
    assert "1 to mend" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2"])
def test_other_spellings_of_the_url_are_accepted(bare_postgres_url: str, scheme: str) -> None:
    url = bare_postgres_url.replace("postgresql", scheme, 1)
    assert migrate(url, "current").returncode == 0


def test_two_at_once_both_succeed(bare_postgres_url: str) -> None:
    """A bystander's table that is never committed holds the first up until the second has come as far as it can."""
    environment = base_environment() | {"POSTGRES_URL": bare_postgres_url}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    engine = Engine(bare_postgres_url, pool_size=2)
    with engine.connect() as bystander:
        bystander.exec_driver_sql("BEGIN; CREATE TABLE root_job (id int)")
        both = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        wait_until(lambda: run(engine, WAITING)[0][0] == 2, "both migrations to wait")
        bystander.exec_driver_sql("ROLLBACK")
    engine.dispose()
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    assert "root_job" in tables_in(bare_postgres_url)


def test_the_statements_can_be_printed_without_a_database() -> None:
    done = migrate("postgresql://nobody@localhost:1/nothing", "upgrade", "head", "--sql")
    assert done.returncode == 0
    assert "CREATE TABLE root_job" in done.stdout
    assert "CREATE TRIGGER segment_task_requeue" in done.stdout


def test_the_printed_statements_do_the_same(bare_postgres_url: str, postgres_url: str) -> None:
    printed = migrate("postgresql://nobody@localhost:1/nothing", "upgrade", "head", "--sql").stdout
    with closing(psycopg2.connect(bare_postgres_url)) as session, session.cursor() as cursor:
        session.autocommit = True
        cursor.execute(printed)
    assert schema(bare_postgres_url) == schema(postgres_url)
    assert migrate("postgresql://nobody@localhost:1/nothing", "downgrade", "head:0001", "--sql").returncode == 0
