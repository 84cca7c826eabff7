"""Each suite of a store runs on the fake and on PostgreSQL."""

from collections.abc import Iterator

import pytest

from app.db.claims import PostgresClaims
from app.db.outbox import PostgresOutbox
from app.db.results import PostgresResults
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.fakes import FakeDatabase
from tests.support.stores import MAX_ATTEMPTS, Stores
from tests.support.tables import Tables, migrated_database


@pytest.fixture(scope="session")
def stores_engine(stack: Stack, template_database: str) -> Iterator[Engine]:
    """One database for all; emptied before each test."""
    with migrated_database(stack, template_database, "contract_stores") as engine:
        yield engine


@pytest.fixture(params=["fake", "PostgreSQL"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """The stores with nothing in them."""
    if request.param == "fake":
        fake = FakeDatabase(max_attempts=MAX_ATTEMPTS)
        return Stores(fake, fake, fake, fake)
    engine: Engine = request.getfixturevalue("stores_engine")
    tables = Tables(engine)
    tables.empty()
    claims = PostgresClaims(engine, "worker-1", MAX_ATTEMPTS)
    return Stores(claims, PostgresResults(engine), PostgresOutbox(engine), tables)
