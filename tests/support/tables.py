"""What stands in the real tables, and a hand to change it past the stores.

Invariant: time is travelled by making everything in the tables older, so no test waits for a lease to end.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol

from sqlalchemy import text

from app.db.postgres import run
from devstack.stack import Stack
from tests.support.engine import Engine
from tests.support.rows import JobRow, OutboxRow, SegmentRow
from tests.support.services import environment_of

MOMENTS = {
    "root_job": ("created_at", "updated_at", "fresh_since", "cancelled_at"),
    "segment_task": (
        *("created_at", "updated_at", "retry_at", "lease_expires_at", "failed_at"),
        *("last_sent_at", "next_send_at"),
    ),
    "completion_outbox": ("created_at", "leased_until", "sent_at"),
}


class TableAccess(Protocol):
    """What the tests of the stores need beside them; `tests.support.fakes.FakeDatabase` has it too."""

    def add_job(self, *segment_ids: str, manifestation_id: str = "M", total: int | None = None) -> str:
        """A QUEUED job with these segments, as a foreign producer inserts it; its id."""
        ...

    def now(self) -> float:
        """The store's clock."""
        ...

    def travel(self, seconds: float) -> None:
        """Let everything be so much older."""
        ...

    def job(self, job_id: str) -> JobRow:
        """The job as it stands."""
        ...

    def segment(self, job_id: str, segment_id: str) -> SegmentRow:
        """The segment as it stands."""
        ...

    def completion(self, job_id: str) -> OutboxRow | None:
        """The job's outbox row as it stands."""
        ...

    def set_job(self, job_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        ...

    def set_segment(self, job_id: str, segment_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        ...

    def requeue(self, job_id: str, segment_id: str) -> None:
        """An operator's plain UPDATE ... SET status = 'QUEUED'."""
        ...


class Tables:
    """The real tables of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def empty(self) -> None:
        """Nothing is left."""
        run(self._engine, "TRUNCATE completion_outbox, segment_task, root_job")

    def add_job(self, *segment_ids: str, manifestation_id: str = "M", total: int | None = None) -> str:
        """A QUEUED job with these segments, as a foreign producer inserts it; its id."""
        job_id = str(uuid.uuid4())
        run(
            self._engine,
            "INSERT INTO root_job (job_id, manifestation_id, total_segments, completed_segments, status)"
            " VALUES (%(job)s, %(manifestation)s, %(total)s, 0, 'QUEUED');"
            " INSERT INTO segment_task (task_id, job_id, segment_id, status)"
            " SELECT gen_random_uuid(), %(job)s::uuid, id, 'QUEUED' FROM unnest(%(segments)s::text[]) AS s (id)",
            {
                "job": job_id,
                "manifestation": manifestation_id,
                "total": len(segment_ids) if total is None else total,
                "segments": list(segment_ids),
            },
        )
        return job_id

    def now(self) -> float:
        """The database's clock."""
        return float(run(self._engine, "SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])

    def travel(self, seconds: float) -> None:
        """Let everything be so much older."""
        statements = [
            f"UPDATE {table} SET " + ", ".join(f"{name} = {name} - %(by)s * interval '1 second'" for name in names)
            for table, names in MOMENTS.items()
        ]
        run(self._engine, ";".join(statements), {"by": seconds})

    def job(self, job_id: str) -> JobRow:
        """The job as it stands."""
        return self._read(JobRow, "root_job", job_id=job_id)[0]

    def segment(self, job_id: str, segment_id: str) -> SegmentRow:
        """The segment as it stands."""
        return self._read(SegmentRow, "segment_task", job_id=job_id, segment_id=segment_id)[0]

    def segments(self, job_id: str | None = None) -> list[SegmentRow]:
        """All segments, or all of one job, as they stand."""
        return self._read(SegmentRow, "segment_task", **({"job_id": job_id} if job_id else {}))

    def completion(self, job_id: str) -> OutboxRow | None:
        """The job's outbox row as it stands."""
        return next(iter(self._read(OutboxRow, "completion_outbox", job_id=job_id)), None)

    def jobs(self) -> list[JobRow]:
        """Every job as it stands."""
        return self._read(JobRow, "root_job")

    def completions(self) -> list[OutboxRow]:
        """Every outbox row as it stands."""
        return self._read(OutboxRow, "completion_outbox")

    def set_job(self, job_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        self._set("root_job", columns, job_id=job_id)

    def set_segment(self, job_id: str, segment_id: str, **columns: Any) -> None:
        """Change columns by hand."""
        self._set("segment_task", columns, job_id=job_id, segment_id=segment_id)

    def requeue(self, job_id: str, segment_id: str) -> None:
        """An operator's plain UPDATE ... SET status = 'QUEUED'."""
        sql = "UPDATE segment_task SET status = 'QUEUED' WHERE job_id = %(job)s AND segment_id = %(segment)s"
        run(self._engine, sql, {"job": job_id, "segment": segment_id})

    def _read[Row](self, kind: type[Row], table: str, **keys: str) -> list[Row]:
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # each is a dataclass
        columns = ", ".join(_read_column(table, name) for name in names)
        where = " AND ".join(f"{name} = %({name})s" for name in keys) or "true"
        rows = run(self._engine, f"SELECT {columns} FROM {table} WHERE {where} ORDER BY 1", keys)
        return [kind(*row) for row in rows]

    def _set(self, table: str, columns: dict[str, Any], **keys: str) -> None:
        changes = ", ".join(
            f"{name} = to_timestamp(%({name})s)" if name in MOMENTS[table] else f"{name} = %({name})s"
            for name in columns
        )
        where = " AND ".join(f"{name} = %(key_{name})s" for name in keys)
        parameters = {**columns, **{f"key_{name}": value for name, value in keys.items()}}
        run(self._engine, f"UPDATE {table} SET {changes} WHERE {where}", parameters)


def _read_column(table: str, name: str) -> str:
    if name in MOMENTS[table]:
        return f"extract(epoch FROM {name})::float8"
    return f"{name}::text" if name.endswith(("_id", "_token", "_json")) else name


@contextmanager
def migrated_database(stack: Stack, template: str, name: str, pool_size: int = 12) -> Iterator[Engine]:
    """An engine on a migrated database that is gone afterwards; for a whole module or a whole state machine."""
    admin = Engine(environment_of(stack)["POSTGRES_URL"], pool_size=1)
    with admin.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    admin.dispose()  # a test may kill the server meanwhile
    engine = Engine(admin.url.set(database=name).render_as_string(hide_password=False), pool_size=pool_size)
    try:
        yield engine
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()
