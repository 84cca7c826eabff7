"""What has to be there before the first message is received.

Invariant: a service that does not answer yet is waited for, and said once for each reason; what waiting can't mend is a
`ConfigurationError`.
"""

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine

from app.db.claims import PostgresClaims
from app.db.postgres import hiding_schemas, missing_tables
from app.db.results import PostgresResults
from app.errors import ConfigurationError, OutageError, ProcessorError, RefusedError
from app.neo4j_database import Neo4JDatabase
from app.neo4j_database_validator import validate
from app.stopping import Stop

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0


def persist[T](step: Callable[[], T], what: str, stop: Stop) -> T | None:
    """`step` again and again while its service does not answer, saying so when the reason changes; None on `stop`."""
    said = ""
    while not stop.is_set():
        try:
            result = step()
        except ConfigurationError:
            raise
        except RefusedError as error:
            raise ConfigurationError(f"{error.service} refuses: {error.reason}") from error
        except ProcessorError as error:
            reason = error.reason if isinstance(error, OutageError) else str(error)
            if reason != said:
                said = reason
                log.warning("Waiting for %s: %s", what, said)
            stop.wait(RETRY_SECONDS)
        else:
            if said:
                log.info("%s is there", what)
            return result
    return None


def expect_tables(engine: Engine, claims: PostgresClaims, results: PostgresResults) -> None:
    """The tables are there, and the two statements that every batch needs fit them. Raises `ProcessorError` if not."""
    if missing := ", ".join(missing_tables(engine)):
        reason = f"the tables {missing} are missing; run: alembic upgrade head"
        if schemas := ", ".join(hiding_schemas(engine)):
            reason = (
                f"the tables {missing} are in the schema {schemas}, which this user may not use (GRANT USAGE ON SCHEMA)"
                " or does not look into (search_path)"
            )
        raise OutageError("PostgreSQL", reason, answers=True)
    claims.check()
    results.check()


def look_at_graph(graph: Neo4JDatabase, stop: Stop) -> None:
    """Wait until Neo4j answers; what is strange in its data is a warning."""
    persist(graph.ping, "Neo4j", stop)
    findings = [] if stop.is_set() else persist(lambda: validate(graph, full=False), "Neo4j", stop) or []
    for finding in findings:
        log.warning("The graph: %s", finding)
