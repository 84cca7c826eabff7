"""The tables, as SQLAlchemy sees them; `alembic check` keeps them and the migrations the same.

Invariant: what must never be is refused here too. Two things the tables do that metadata can't say stand in the
migration: a row set to QUEUED by anybody loses its token and lease, and gives back what it had counted.
"""

import uuid
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.jobs import JOB_STATUSES, SEGMENT_STATUSES

_NOW: Final = text("clock_timestamp()")
_NEW_ID: Final = text("gen_random_uuid()")
_NEXT_SENDING: Final = text("clock_timestamp() + interval '15 minutes'")


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """Metadata for Alembic."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own idiom)
        datetime: DateTime(timezone=True),
        uuid.UUID: UUID(as_uuid=False),
        str: Text(),
    }


class RootJob(Base):
    """One job: all segments of one manifestation. `fresh_since`: no page read before it may be used."""

    __tablename__ = "root_job"

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=_NEW_ID)
    manifestation_id: Mapped[str]
    total_segments: Mapped[int]
    completed_segments: Mapped[int] = mapped_column(server_default=text("0"))
    failed_segments: Mapped[int] = mapped_column(server_default=text("0"))
    status: Mapped[str] = mapped_column(server_default=text("'QUEUED'"))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    fresh_since: Mapped[datetime] = mapped_column(server_default=_NOW)
    cancelled_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("status", JOB_STATUSES), name="root_job_status_known"),
        CheckConstraint(
            "total_segments >= 0 AND completed_segments >= 0 AND failed_segments >= 0",
            name="root_job_counters_positive",
        ),
        # The newest job of a text (HTTP); the unfinished jobs (operators, the sweep). Not on updated_at or a
        # counter: these change with every batch, and an index on them would end heap-only updates of a hot row.
        Index("root_job_manifestation", "manifestation_id", "created_at"),
        Index("root_job_status", "status"),
        # Pages of all jobs (HTTP).
        Index("root_job_age", "created_at", "job_id"),
    )


class SegmentTask(Base):
    """One segment of a job: its claim while it is in work, its result or its error once it has ended.

    `claimed_alone`: its process worked on nothing else while the last claim ran. `settled_token`: of the claim that
    wrote an ending last. `next_send_at`: when a sweep sends its message again, if it is unfinished then.
    """

    __tablename__ = "segment_task"

    task_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=_NEW_ID)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("root_job.job_id"))
    segment_id: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'QUEUED'"))
    result_json: Mapped[Any | None] = mapped_column(JSONB)
    result_location: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    span_start: Mapped[int | None] = mapped_column(BigInteger)
    span_end: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    retry_at: Mapped[datetime | None]
    claim_token: Mapped[uuid.UUID | None]
    lease_expires_at: Mapped[datetime | None]
    claimed_by: Mapped[str | None]
    claimed_alone: Mapped[bool] = mapped_column(server_default=text("false"))
    settled_token: Mapped[uuid.UUID | None]
    failed_at: Mapped[datetime | None]
    last_sent_at: Mapped[datetime | None]
    send_count: Mapped[int] = mapped_column(server_default=text("0"))
    next_send_at: Mapped[datetime | None] = mapped_column(server_default=_NEXT_SENDING)

    __table_args__ = (
        UniqueConstraint("job_id", "segment_id", name="segment_task_once_a_job"),
        CheckConstraint(_one_of("status", SEGMENT_STATUSES), name="segment_task_status_known"),
        CheckConstraint("0 <= span_start AND span_start <= span_end", name="segment_task_span_in_order"),
        CheckConstraint("(span_start IS NULL) = (span_end IS NULL)", name="segment_task_span_whole"),
        CheckConstraint("attempts >= 0 AND send_count >= 0", name="segment_task_counts_positive"),
        # The sweep looks for unfinished segments whose message is to be sent again.
        Index(
            "segment_task_unfinished_by_next_sending",
            "next_send_at",
            postgresql_where=text("status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')"),
        ),
    )


class CompletionOutbox(Base):
    """The completion message of a COMPLETED job, until it is sent; leased to whoever is sending it."""

    __tablename__ = "completion_outbox"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("root_job.job_id"), primary_key=True)
    manifestation_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease_token: Mapped[uuid.UUID | None]
    leased_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    send_count: Mapped[int] = mapped_column(server_default=text("0"))

    __table_args__ = (Index("completion_outbox_unsent", "leased_until", postgresql_where=text("sent_at IS NULL")),)


class IdempotencyKey(Base):
    """Which job a POST with this `Idempotency-Key` has made; counts as long as that job is there.

    No foreign key: it would keep operators from truncating the published tables.
    """

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(primary_key=True)
    manifestation_id: Mapped[str]
    job_id: Mapped[uuid.UUID] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)

    __table_args__ = (UniqueConstraint("job_id", name="idempotency_key_once_a_job"),)
