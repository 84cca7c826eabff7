"""Jobs, their segments, and the outbox of completion messages."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import context, op
from app.errors import ConfigurationError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("root_job", "segment_task", "completion_outbox")
NOW = sa.text("clock_timestamp()")
NEW_ID = sa.text("gen_random_uuid()")
ZERO = sa.text("0")

# A row set to QUEUED by anybody, an operator's plain UPDATE included: no leftover token or lease survives it.
REQUEUE = """
CREATE FUNCTION segment_task_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.claim_token := NULL;
    NEW.lease_expires_at := NULL;
    NEW.claimed_by := NULL;
    NEW.retry_at := NULL;
    NEW.updated_at := clock_timestamp();
    IF OLD.status IN ('COMPLETED', 'FAILED') THEN
        NEW.attempts := 0;
        NEW.send_count := 0;
        NEW.result_json := NULL;
        NEW.error_message := NULL;
        NEW.failed_at := NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER segment_task_requeue BEFORE UPDATE OF status ON segment_task
FOR EACH ROW WHEN (NEW.status = 'QUEUED' AND OLD.status <> 'QUEUED')
EXECUTE FUNCTION segment_task_requeue();
"""

# What it had counted is given back, a cancellation is lifted, and pages read before this moment are too old for it.
# AFTER, so that all segments of the statement are locked before the first job is, as the workers lock, too.
UNCOUNT = """
CREATE FUNCTION segment_task_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE root_job
    SET completed_segments = completed_segments - (OLD.status = 'COMPLETED')::int,
        failed_segments = failed_segments - (OLD.status = 'FAILED')::int,
        status = 'IN_PROGRESS',
        fresh_since = clock_timestamp(),
        cancelled_at = NULL,
        updated_at = clock_timestamp()
    WHERE job_id = NEW.job_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER segment_task_uncount AFTER UPDATE OF status ON segment_task
FOR EACH ROW WHEN (NEW.status = 'QUEUED' AND OLD.status IN ('COMPLETED', 'FAILED'))
EXECUTE FUNCTION segment_task_uncount();
"""


def upgrade() -> None:
    """Make the tables; stop, and change nothing, where any of them is already there."""
    _refuse_foreign_tables()
    op.create_table(
        "root_job",
        sa.Column("job_id", postgresql.UUID(as_uuid=False), primary_key=True, server_default=NEW_ID),
        sa.Column("manifestation_id", sa.Text, nullable=False),
        sa.Column("total_segments", sa.Integer, nullable=False),
        sa.Column("completed_segments", sa.Integer, nullable=False, server_default=ZERO),
        sa.Column("failed_segments", sa.Integer, nullable=False, server_default=ZERO),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'QUEUED'")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("fresh_since", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('QUEUED', 'IN_PROGRESS', 'COMPLETED', 'FAILED')", name="root_job_status_known"),
        sa.CheckConstraint(
            "completed_segments >= 0 AND failed_segments >= 0"
            " AND completed_segments + failed_segments <= total_segments",
            name="root_job_counters_fit",
        ),
        # Room on each page for the next version of a row whose counters change all the time.
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("root_job_manifestation", "root_job", ["manifestation_id", "created_at"])
    op.create_index("root_job_status", "root_job", ["status"])
    op.create_table(
        "segment_task",
        sa.Column("task_id", postgresql.UUID(as_uuid=False), primary_key=True, server_default=NEW_ID),
        sa.Column("job_id", postgresql.UUID(as_uuid=False), sa.ForeignKey("root_job.job_id"), nullable=False),
        sa.Column("segment_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'QUEUED'")),
        sa.Column("result_json", postgresql.JSONB),
        sa.Column("result_location", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("span_start", sa.BigInteger),
        sa.Column("span_end", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=ZERO),
        sa.Column("retry_at", sa.DateTime(timezone=True)),
        sa.Column("claim_token", postgresql.UUID(as_uuid=False)),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("claimed_by", sa.Text),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.Column("last_sent_at", sa.DateTime(timezone=True)),
        sa.Column("send_count", sa.Integer, nullable=False, server_default=ZERO),
        sa.UniqueConstraint("job_id", "segment_id", name="segment_task_once_a_job"),
        sa.CheckConstraint(
            "status IN ('QUEUED', 'IN_PROGRESS', 'COMPLETED', 'RETRYING', 'FAILED')",
            name="segment_task_status_known",
        ),
        sa.CheckConstraint("0 <= span_start AND span_start <= span_end", name="segment_task_span_in_order"),
        sa.CheckConstraint("(span_start IS NULL) = (span_end IS NULL)", name="segment_task_span_whole"),
        sa.CheckConstraint("attempts >= 0 AND send_count >= 0", name="segment_task_counts_positive"),
    )
    op.create_index(
        "segment_task_unfinished_by_age",
        "segment_task",
        [sa.text("coalesce(last_sent_at, created_at)")],
        postgresql_where=sa.text("status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')"),
    )
    op.create_table(
        "completion_outbox",
        sa.Column("job_id", postgresql.UUID(as_uuid=False), sa.ForeignKey("root_job.job_id"), primary_key=True),
        sa.Column("manifestation_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("lease_token", postgresql.UUID(as_uuid=False)),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("send_count", sa.Integer, nullable=False, server_default=ZERO),
    )
    op.create_index(
        "completion_outbox_unsent",
        "completion_outbox",
        ["leased_until"],
        postgresql_where=sa.text("sent_at IS NULL"),
    )
    op.execute(REQUEUE)
    op.execute(UNCOUNT)


def downgrade() -> None:
    """Remove the tables with everything in them."""
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION segment_task_requeue(); DROP FUNCTION segment_task_uncount()")


def _refuse_foreign_tables() -> None:
    if context.is_offline_mode():
        return
    present = sorted(set(TABLES) & set(sa.inspect(op.get_bind()).get_table_names()))
    if present:
        raise ConfigurationError(
            f"This database already has {', '.join(present)}, not made by these migrations: nothing was changed."
            " Rename or move the old tables, or point POSTGRES_URL at an empty database."
        )
