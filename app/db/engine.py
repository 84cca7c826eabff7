"""SQLAlchemy's engine, for those who work past the statements of ours: the migrations, and code that imports `engine`.

Invariant: psycopg2 is chosen explicitly, and a server that is gone is waited for as little as by `app.db.postgres`.
"""

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.db.connection import BOUNDS
from app.db.pool import RECYCLE_SECONDS, WAIT_SECONDS
from app.errors import ConfigurationError


def make_engine(url: str, *, pool_size: int = 4, application_name: str = "segment-relationship-processor") -> Engine:
    """An engine for `url`, as `app.db.address` reads it, in autocommit. Raises `ConfigurationError`."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg2")
        return create_engine(
            parsed,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=4,
            pool_timeout=WAIT_SECONDS,
            pool_use_lifo=True,
            pool_recycle=int(RECYCLE_SECONDS),
            pool_reset_on_return=None,  # nothing is left open: each statement is a transaction of its own
            connect_args={**BOUNDS, "application_name": application_name},
        )
    except ArgumentError as error:
        raise ConfigurationError("POSTGRES_URL is not a URL of PostgreSQL") from error
