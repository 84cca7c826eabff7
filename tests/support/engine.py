"""The database under test, and SQLAlchemy's connections for what a test does past the statements of ours.

Invariant: both come to the same database; neither connects before its first use.
"""

from contextlib import AbstractContextManager

import sqlalchemy

from app.db.engine import make_engine
from app.db.postgres import Database


class Engine(Database):
    """What `run` and the stores take, with `connect` and `begin` of SQLAlchemy beside."""

    def __init__(self, url: str, *, pool_size: int = 4, application_name: str = "tests") -> None:
        super().__init__(url, pool_size=pool_size, application_name=application_name)
        self._by_hand = make_engine(url, pool_size=pool_size, application_name=application_name)

    @property
    def url(self) -> sqlalchemy.URL:
        """The URL, its password hidden when it is printed."""
        return self._by_hand.url

    def connect(self) -> sqlalchemy.Connection:
        """A connection past our pool; each of its statements is a transaction of its own."""
        return self._by_hand.connect()

    def begin(self) -> AbstractContextManager[sqlalchemy.Connection]:
        """The same for as long as the context lasts."""
        return self._by_hand.begin()

    def dispose(self) -> None:
        """Close the connections of both; whoever asks again gets new ones."""
        super().dispose()
        self._by_hand.dispose()
