"""What an operator wants to know of PostgreSQL before a worker runs: the migrations' level, and our rights.

Invariant: it only reads, and no table need be there.
"""

from typing import Any, Final

from app.db.checks import TABLES
from app.db.postgres import Database, run

RIGHTS: Final = ["SELECT", "INSERT", "UPDATE"]

MISSING_RIGHTS: Final = """
SELECT name, privilege
FROM unnest(%(tables)s::text[]) AS t (name)
CROSS JOIN unnest(%(rights)s::text[]) AS r (privilege)
WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), privilege)
ORDER BY name, privilege
"""


def read_level(database: Database) -> str | None:
    """The newest migration that was run; None when none was. Raises `OutageError`."""
    if not run(database, "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"):
        return None
    rows: list[Any] = run(database, "SELECT version_num FROM alembic_version")
    return str(rows[0].version_num) if rows else None


def missing_rights(database: Database) -> dict[str, list[str]]:
    """By right (SELECT, INSERT, UPDATE) the tables of ours on which this user lacks it. Raises `OutageError`."""
    missing: dict[str, list[str]] = {}
    for row in run(database, MISSING_RIGHTS, {"tables": TABLES, "rights": RIGHTS}):
        missing.setdefault(row.privilege, []).append(row.name)
    return missing
