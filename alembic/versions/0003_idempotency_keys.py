"""Idempotency keys of the HTTP side, and an index that lists jobs by their age."""

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing that stands in the other tables is read or changed."""
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("manifestation_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("job_id", name="idempotency_key_once_a_job"),
    )
    op.create_index("root_job_age", "root_job", ["created_at", "job_id"])


def downgrade() -> None:
    """Back to 0002; a request that is repeated with its key makes a second job then."""
    op.drop_index("root_job_age", "root_job")
    op.drop_table("idempotency_key")
