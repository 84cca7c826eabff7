"""The one exception tree. Adapters translate a vendor's errors into it with ``raise ... from``.

Invariant: what kind of failure something is (docs/formats.md, "Failure") is decided where it happens
and carried by its type; nothing above an adapter looks at a vendor's exception.
"""

from collections.abc import Collection
from typing import ClassVar


class ProcessorError(Exception):
    """Base of every error that this project raises on purpose."""


class TransientError(ProcessorError):
    """This attempt failed, a later one may succeed: one query's time-out, throttling. Charges an attempt."""


class StatementTimeoutError(TransientError):
    """PostgreSQL ended a statement of ours that waited for a lock, or ran, for too long; a smaller one may succeed."""


class QueryTimeoutError(TransientError):
    """A query asked too much of the graph, of its time or its memory; a smaller one may succeed."""

    def __init__(self, reason: str, pages: Collection[str] = ()) -> None:
        """`pages`: the ids of those that are too slow even when each is asked for by itself."""
        super().__init__(reason)
        self.pages = frozenset(pages)


class OutageError(TransientError):
    """A whole service can't work for us. No attempt is charged; receiving pauses until a probe succeeds."""

    says: ClassVar = "does not answer"

    def __init__(self, service: str, reason: str, *, answers: bool = False) -> None:
        """`service` as a person names it ("PostgreSQL"); `reason` without secrets; `answers`: it says so itself."""
        super().__init__(f"{service} {'does not do its work' if answers else self.says}: {reason}")
        self.service = service
        self.reason = reason


class RefusedError(OutageError):
    """A service answers and refuses us: the password, the database's name, a right, a constant query of ours.

    At the start waiting does not help.
    """

    says: ClassVar = "refuses us"


class SchemaError(OutageError):
    """PostgreSQL's tables are not those that our statements were written for."""


class PermanentError(ProcessorError):
    """No later attempt can succeed: unknown manifestation, malformed graph data."""


class DataError(PermanentError):
    """PostgreSQL refuses a value (SQLSTATE classes 22, 23, 54); which row of the batch it was is not known."""


class PoisonError(PermanentError):
    """A message that is not of the published shape; there is no row that it could belong to."""


class ConfigurationError(ProcessorError):
    """The settings, the queues or the credentials are wrong, and waiting does not help (exit code 2)."""
