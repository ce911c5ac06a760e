"""Indexes and columns for a million jobs.

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

from models.records.columns import Json

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("request_id", sa.String(128)))
    with op.batch_alter_table("inspections") as inspections:
        inspections.add_column(sa.Column("request_id", sa.String(128)))
        inspections.add_column(sa.Column("resolved", Json))
        inspections.add_column(sa.Column("facts", Json))
    op.create_index(op.f("ix_jobs_status_finished_at"), "jobs", ["status", "finished_at"])
    op.create_index(op.f("ix_attempts_ended_at"), "attempts", ["ended_at"])
    op.create_index(op.f("ix_inspections_finished_at"), "inspections", ["finished_at"])
    op.create_index(op.f("ix_inspections_kind_created_at"), "inspections", ["kind", "created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_inspections_kind_created_at"), table_name="inspections")
    op.drop_index(op.f("ix_inspections_finished_at"), table_name="inspections")
    op.drop_index(op.f("ix_attempts_ended_at"), table_name="attempts")
    op.drop_index(op.f("ix_jobs_status_finished_at"), table_name="jobs")
    with op.batch_alter_table("inspections") as inspections:
        inspections.drop_column("facts")
        inspections.drop_column("resolved")
        inspections.drop_column("request_id")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("request_id")
