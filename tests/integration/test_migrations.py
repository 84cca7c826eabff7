"""The migrations: up, down, twice at once, and never over tables that somebody else has made."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.db.postgres import make_engine, run
from tests.conftest import ROOT, base_environment, migrate
from tests.worker import wait_until

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
    engine = make_engine(url, pool_size=1)
    found = [tuple(row) for row in run(engine, SCHEMA)]
    engine.dispose()
    return found


def tables_in(url: str) -> set[str]:
    return {row[1] for row in schema(url) if row[0] == "column"}


def test_up_down_up_and_nothing_left_to_do(bare_postgres_url: str) -> None:
    assert migrate(bare_postgres_url, "upgrade", "head").returncode == 0
    first = schema(bare_postgres_url)
    assert tables_in(bare_postgres_url) == {"root_job", "segment_task", "completion_outbox", "alembic_version"}
    assert migrate(bare_postgres_url, "downgrade", "base").returncode == 0
    assert {row[1] for row in schema(bare_postgres_url)} == {"alembic_version"}
    assert migrate(bare_postgres_url, "upgrade", "head").returncode == 0
    assert schema(bare_postgres_url) == first
    check = migrate(bare_postgres_url, "check")
    assert (check.returncode, "No new upgrade operations" in check.stdout + check.stderr) == (0, True)


@pytest.mark.parametrize("table", ["root_job", "segment_task", "completion_outbox"])
def test_foreign_tables_stop_the_first_migration(bare_postgres_url: str, table: str) -> None:
    engine = make_engine(bare_postgres_url, pool_size=1)
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
    engine = make_engine(bare_postgres_url, pool_size=2)
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
