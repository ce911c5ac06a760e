"""Runs of MLflow.

Revision: 0014
Follows: 0013
"""

import sqlalchemy as sa
from alembic import op

from models.records.columns import Json

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mlflow_runs",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("described", sa.Boolean(), nullable=False),
        sa.Column("metrics", Json, nullable=False),
        sa.Column("files", Json, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_mlflow_runs_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_mlflow_runs")),
    )
    pending = sa.text("status = 'pending'")
    op.create_index(
        op.f("ix_mlflow_runs_due_at"), "mlflow_runs", ["due_at"], postgresql_where=pending, sqlite_where=pending
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_mlflow_runs_due_at"), table_name="mlflow_runs")
    op.drop_table("mlflow_runs")
