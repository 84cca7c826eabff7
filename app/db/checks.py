"""Whether PostgreSQL is as a worker needs it: it answers, takes writes, and has the tables."""

from typing import Final

from app.db.claims import PostgresClaims
from app.db.failures import SERVICE
from app.db.postgres import Database, run
from app.db.results import PostgresResults
from app.errors import OutageError

TABLES: Final = ["root_job", "segment_task", "completion_outbox"]


def ping(database: Database) -> None:
    """Ask whether PostgreSQL answers and would take a write now. Raises `OutageError`."""
    rows = run(database, "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool")
    is_standby, only_reads = rows[0]
    if is_standby:
        raise OutageError(SERVICE, "it is a read-only standby", answers=True)
    if only_reads:
        raise OutageError(SERVICE, "it only reads (default_transaction_read_only is on)", answers=True)


def missing_tables(database: Database) -> list[str]:
    """Which of our tables are not there; all of them before ``alembic upgrade head``. Raises `OutageError`."""
    rows = run(
        database,
        "SELECT name FROM unnest(%(names)s::text[]) AS n (name) WHERE to_regclass(name) IS NULL",
        {"names": TABLES},
    )
    return [row[0] for row in rows]


def hiding_schemas(database: Database) -> list[str]:
    """Schemas that hold tables of these names which this user does not see or may not. Raises `OutageError`."""
    rows = run(
        database,
        "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class"
        " WHERE relname = ANY(%(names)s) AND relkind IN ('r', 'p') AND NOT pg_table_is_visible(oid) ORDER BY 1",
        {"names": TABLES},
    )
    return [row[0] for row in rows]


def expect_tables(database: Database, *statements: PostgresClaims | PostgresResults) -> None:
    """The tables are there, and these statements fit them. Raises `ProcessorError` if not."""
    if missing := ", ".join(missing_tables(database)):
        reason = f"the tables {missing} are missing; run: alembic upgrade head"
        if schemas := ", ".join(hiding_schemas(database)):
            reason = (
                f"the tables {missing} are in the schema {schemas}, which this user may not use (GRANT USAGE ON SCHEMA)"
                " or does not look into (search_path)"
            )
        raise OutageError(SERVICE, reason, answers=True)
    for statement in statements:
        statement.check()
