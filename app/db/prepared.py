"""Transactions whose plans PostgreSQL keeps: the two that every batch pays for.

Invariant: the same statements in the same order as the plain text, in one round trip; only that they are planned once
a connection and not once a batch, which is half of what they cost. A pooler that gives each transaction another
server connection knows no prepared statements: then the plain text is sent.
"""

import re
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from app.db.connection import Connection
from app.db.postgres import LOCK_TIMEOUT_MS, Database, bounds, run

_PARAMETER: Final = re.compile(r"%\((\w+)\)s(::\w+(?:\[\])?)?")

# Every lookup here is by key. A plan that was made while the tables were still empty would scan them, and would be kept
# when they have grown; so the plans that only suit small tables are ruled out, whenever PostgreSQL plans anew.
_BY_KEY: Final = (
    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off;"
    " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; "
)

_MAY_BE_LOST: Final = "SET LOCAL synchronous_commit = off; "


class Prepared:
    """Statements, divided by a semicolon and an empty line, that run as one transaction.

    Parameters are written ``%(name)s``, with a cast where PostgreSQL can't tell their type.
    """

    def __init__(self, sql: str, *, is_lasting: bool = True) -> None:
        """`is_lasting`: not answered before it is on disk; else a crash of the server may take it back."""
        kept = "" if is_lasting else _MAY_BE_LOST
        self._sql = kept + sql
        self._name = "srp_" + blake2b(sql.encode(), digest_size=6).hexdigest()
        statements = [_number(text.strip()) for text in sql.split(";\n\n")]
        self._prepare = ";\n".join(f"PREPARE {self._name}_{at} AS {text}" for at, (text, _) in enumerate(statements))
        self._execute = (
            kept
            + _BY_KEY
            + "; ".join(
                f"EXECUTE {self._name}_{at}" + (f"({', '.join(arguments)})" if arguments else "")
                for at, (_, arguments) in enumerate(statements)
            )
        )

    def run(
        self, database: Database, parameters: Mapping[str, Any], *, lock_timeout_ms: int = LOCK_TIMEOUT_MS
    ) -> list[Any]:
        """The last statement's rows. Raises as `app.db.postgres.run`."""
        return run(database, partial(self._text_for, database), parameters, lock_timeout_ms=lock_timeout_ms)

    def _text_for(self, database: Database, connection: Connection) -> str:
        """What to send on this connection, on which the statements are prepared the first time."""
        if not database.keeps_plans(connection):
            return self._sql
        if self._name not in connection.prepared:
            with connection.cursor() as cursor:
                cursor.execute(bounds() + self._prepare)
            connection.prepared.add(self._name)
        return self._execute


def _number(text: str) -> tuple[str, list[str]]:
    """`text` with its parameters as $1, $2, ..., and what to pass for them."""
    numbers: dict[str, int] = {}
    arguments: list[str] = []

    def number(found: re.Match[str]) -> str:
        name, cast = found[1], found[2] or ""
        if name not in numbers:
            numbers[name] = len(numbers) + 1
            arguments.append(f"%({name})s{cast}")
        return f"${numbers[name]}{cast}"

    return _PARAMETER.sub(number, text), arguments
