"""Deaths that a claim was alone in, endings known again, the next sending, counting a whole UPDATE at once."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UNFINISHED = "status IN ('QUEUED', 'IN_PROGRESS', 'RETRYING')"
NEXT_SENDING = sa.text("clock_timestamp() + interval '15 minutes'")

# As in 0001, and: the next sending counts from the last one again, with no doubling.
REQUEUE = """
CREATE OR REPLACE FUNCTION segment_task_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.claim_token := NULL;
    NEW.lease_expires_at := NULL;
    NEW.claimed_by := NULL;
    NEW.claimed_alone := false;
    NEW.retry_at := NULL;
    NEW.updated_at := clock_timestamp();
    IF OLD.status IN ('COMPLETED', 'FAILED') THEN
        NEW.attempts := 0;
        NEW.send_count := 0;
        NEW.next_send_at := coalesce(NEW.last_sent_at, NEW.created_at) + interval '15 minutes';
        NEW.result_json := NULL;
        NEW.error_message := NULL;
        NEW.failed_at := NULL;
    END IF;
    RETURN NEW;
END
$$;
"""

# A job's row is updated once for all the segments of a statement: once for each would be quadratic, since every
# update has to pass the versions that those before it have left. Nothing is joined: what a session's first such UPDATE
# makes PostgreSQL believe of the number of rows would decide how the join is done for thousands. And only the old rows
# are kept for the trigger, which have no result yet wherever a worker writes one.
UNCOUNT = """
DROP TRIGGER segment_task_uncount ON segment_task;

CREATE OR REPLACE FUNCTION segment_task_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    uncounted record;
BEGIN
    IF NOT EXISTS (SELECT FROM old_rows WHERE status IN ('COMPLETED', 'FAILED')) THEN
        RETURN NULL;
    END IF;
    FOR uncounted IN EXECUTE $query$
        SELECT job_id,
               count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
               count(*) FILTER (WHERE status = 'FAILED') AS failed
        FROM old_rows o
        WHERE status IN ('COMPLETED', 'FAILED')
          AND (SELECT status FROM segment_task t WHERE t.task_id = o.task_id) = 'QUEUED'
        GROUP BY job_id
        ORDER BY job_id
    $query$ LOOP
        UPDATE root_job
        SET completed_segments = completed_segments - uncounted.completed,
            failed_segments = failed_segments - uncounted.failed,
            status = 'IN_PROGRESS',
            fresh_since = clock_timestamp(),
            cancelled_at = NULL,
            updated_at = clock_timestamp()
        WHERE job_id = uncounted.job_id;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER segment_task_uncount AFTER UPDATE ON segment_task
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION segment_task_uncount();
"""

REQUEUE_OF_0001 = """
CREATE OR REPLACE FUNCTION segment_task_requeue() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""

UNCOUNT_OF_0001 = """
DROP TRIGGER segment_task_uncount ON segment_task;

CREATE OR REPLACE FUNCTION segment_task_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
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
    """Add the columns; a job may have more rows than its producer counted."""
    op.add_column(
        "segment_task", sa.Column("claimed_alone", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )
    op.add_column("segment_task", sa.Column("settled_token", postgresql.UUID(as_uuid=False)))
    op.add_column("segment_task", sa.Column("next_send_at", sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE segment_task SET next_send_at ="  # noqa: S608  (a constant of ours)
        " coalesce(last_sent_at, created_at) + interval '15 minutes' * 2 ^ least(send_count, 10)"
        f" WHERE {UNFINISHED}"
    )
    op.alter_column("segment_task", "next_send_at", server_default=NEXT_SENDING)
    op.drop_index("segment_task_unfinished_by_age", "segment_task")
    op.create_index(
        "segment_task_unfinished_by_next_sending",
        "segment_task",
        ["next_send_at"],
        postgresql_where=sa.text(UNFINISHED),
    )
    op.drop_constraint("root_job_counters_fit", "root_job")
    op.create_check_constraint(
        "root_job_counters_positive",
        "root_job",
        "total_segments >= 0 AND completed_segments >= 0 AND failed_segments >= 0",
    )
    op.execute(REQUEUE)
    op.execute(UNCOUNT)


def downgrade() -> None:
    """Back to 0001; stops where a job has ended more segments than its producer counted."""
    op.execute(UNCOUNT_OF_0001)
    op.execute(REQUEUE_OF_0001)
    op.drop_constraint("root_job_counters_positive", "root_job")
    op.create_check_constraint(
        "root_job_counters_fit",
        "root_job",
        "completed_segments >= 0 AND failed_segments >= 0 AND completed_segments + failed_segments <= total_segments",
    )
    op.drop_index("segment_task_unfinished_by_next_sending", "segment_task")
    op.create_index(
        "segment_task_unfinished_by_age",
        "segment_task",
        [sa.text("coalesce(last_sent_at, created_at)")],
        postgresql_where=sa.text(UNFINISHED),
    )
    op.drop_column("segment_task", "next_send_at")
    op.drop_column("segment_task", "settled_token")
    op.drop_column("segment_task", "claimed_alone")
