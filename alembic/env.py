"""Runs the migrations against POSTGRES_URL, each `alembic` command in one transaction.

Invariant: a first migration never touches tables that somebody else has made.
"""

import sys

import psycopg2
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from alembic import context
from app.config import get
from app.db.engine import make_engine
from app.db.failures import translate
from app.db.models import Base
from app.db.postgres import STATEMENT_TIMEOUT_MS
from app.errors import ConfigurationError, OutageError, SchemaError

# Two workers deployed at once may both run the migrations: the second waits, and finds nothing left to do.
MIGRATION_LOCK = 5_306_092


def run_offline() -> None:
    """``alembic upgrade head --sql``: print the statements."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online(url: str) -> None:
    """Migrate the database at `url`."""
    engine = make_engine(url, application_name="alembic").execution_options(isolation_level="READ COMMITTED")
    with engine.connect() as connection, connection.begin():
        # It may take long and wait long; only if it hangs itself, between two statements, is it ended.
        connection.execute(
            text(
                "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0;"
                f" SET LOCAL idle_in_transaction_session_timeout = {STATEMENT_TIMEOUT_MS}"
            )
        )
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    try:
        run_online(get("POSTGRES_URL"))
    except ConfigurationError as error:
        sys.exit(str(error))
    except DBAPIError as error:
        # What PostgreSQL does not allow or can't do now is one line; what a migration does wrong keeps its traceback.
        found = translate(error.orig) if isinstance(error.orig, psycopg2.Error) else None
        if not isinstance(found, OutageError) or isinstance(found, SchemaError):
            raise
        sys.exit(str(found))
