"""The tables, as SQLAlchemy sees them; `alembic check` keeps them and the migrations the same.

Invariant: what must never be is refused here too. Two things the tables do that metadata can't say stand in the
migration: a row set to QUEUED by anybody loses its token and lease, and gives back what it had counted.

What stands below a column is its meaning in docs/reference.md.
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
    """One job: all segments of one manifestation."""

    __tablename__ = "root_job"

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=_NEW_ID)
    """The same in every message of the job."""
    manifestation_id: Mapped[str]
    """The text whose segments these are."""
    total_segments: Mapped[int]
    """How many segments the job has, by its producer's count; the job ends when so many have ended."""
    completed_segments: Mapped[int] = mapped_column(server_default=text("0"))
    """How many of them are COMPLETED; changed in the transaction that changes the row."""
    failed_segments: Mapped[int] = mapped_column(server_default=text("0"))
    """How many of them are FAILED, likewise."""
    status: Mapped[str] = mapped_column(server_default=text("'QUEUED'"))
    """Follows from the counters. FAILED: all segments have ended, and at least one of them is FAILED."""
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When the row was inserted."""
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When its counters or its status changed last."""
    fresh_since: Mapped[datetime] = mapped_column(server_default=_NOW)
    """No page that was read before it may be used: when the job was made, or retried last."""
    cancelled_at: Mapped[datetime | None]
    """When an operator ended it; its segments are not sent again and not worked on."""

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
    """One segment of a job: its claim while it is in work, its result or its error once it has ended."""

    __tablename__ = "segment_task"

    task_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=_NEW_ID)
    """Rows are locked in its order."""
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("root_job.job_id"))
    """The job that counts it."""
    segment_id: Mapped[str]
    """Once a job."""
    status: Mapped[str] = mapped_column(server_default=text("'QUEUED'"))
    """RETRYING: it has failed for a reason that may pass, and waits for `retry_at`."""
    result_json: Mapped[Any | None] = mapped_column(JSONB)
    """What is related to it, once it is COMPLETED."""
    result_location: Mapped[str | None]
    """Kept for producers that know it, and never written here."""
    error_message: Mapped[str | None]
    """Why it is FAILED, or why it is tried again."""
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When the row was inserted."""
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When its status changed last."""
    span_start: Mapped[int | None] = mapped_column(BigInteger)
    """First character, from the producer or the first claim; goes before a later message's, with a warning."""
    span_end: Mapped[int | None] = mapped_column(BigInteger)
    """The character after the last, likewise."""
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Runs that are charged to it; outages and deaths of workers beside others are not."""
    retry_at: Mapped[datetime | None]
    """RETRYING: not to be claimed before it."""
    claim_token: Mapped[uuid.UUID | None]
    """Of the newest claim: only who holds it may write."""
    lease_expires_at: Mapped[datetime | None]
    """Until then nobody else may claim it, by the clock of PostgreSQL."""
    claimed_by: Mapped[str | None]
    """Host, process and start of the worker that claimed it last."""
    claimed_alone: Mapped[bool] = mapped_column(server_default=text("false"))
    """Its process worked on nothing else while the last claim ran."""
    settled_token: Mapped[uuid.UUID | None]
    """Of the claim that wrote an ending last: an ending that is repeated is known by it."""
    failed_at: Mapped[datetime | None]
    """When it became FAILED; a message that was sent later (a dead letter that was redriven) revives it."""
    last_sent_at: Mapped[datetime | None]
    """When this project sent its message last; null: never, or not since it was retried."""
    send_count: Mapped[int] = mapped_column(server_default=text("0"))
    """How often a sweep has sent its message again."""
    next_send_at: Mapped[datetime | None] = mapped_column(server_default=_NEXT_SENDING)
    """When a sweep sends its message again, if it is unfinished and nobody works on it then."""

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
    """One row a COMPLETED job."""
    manifestation_id: Mapped[str]
    """For the message, which needs no other table then."""
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When the job ended."""
    lease_token: Mapped[uuid.UUID | None]
    """Of whoever is sending it: only the holder marks it as sent."""
    leased_until: Mapped[datetime | None]
    """From then on another worker sends it."""
    sent_at: Mapped[datetime | None]
    """When the queue had accepted it; null: it is still to be sent."""
    send_count: Mapped[int] = mapped_column(server_default=text("0"))
    """How often it was sent."""

    __table_args__ = (Index("completion_outbox_unsent", "leased_until", postgresql_where=text("sent_at IS NULL")),)


class IdempotencyKey(Base):
    """Which job a POST with this `Idempotency-Key` has made; counts as long as that job is there.

    No foreign key: it would keep operators from truncating the published tables.
    """

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(primary_key=True)
    """What the client sent as `Idempotency-Key`."""
    manifestation_id: Mapped[str]
    """Of the text that was asked for; the same key for another text is refused."""
    job_id: Mapped[uuid.UUID] = mapped_column()
    """The job that the first request with this key made."""
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    """When that was."""

    __table_args__ = (UniqueConstraint("job_id", name="idempotency_key_once_a_job"),)
