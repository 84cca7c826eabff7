"""Runs the migrations against POSTGRES_URL, each `alembic` command in one transaction.

Invariant: a first migration never touches tables that somebody else has made.
"""

import sys

from sqlalchemy import text

from alembic import context
from app.config import get
from app.db.models import Base
from app.db.postgres import make_engine
from app.errors import ConfigurationError

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
        connection.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"))
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
