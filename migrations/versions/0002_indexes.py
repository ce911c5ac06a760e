"""Indexes for deletions and sweeps.

Revision: 0002
Follows: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_idempotency_job_id"), "idempotency", ["job_id"])
    op.create_index(op.f("ix_jobs_deleted_at"), "jobs", ["deleted_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_deleted_at"), table_name="jobs")
    op.drop_index(op.f("ix_idempotency_job_id"), table_name="idempotency")
