"""Experiments.

Revision: 0011
Follows: 0010
"""

import sqlalchemy as sa
from alembic import op

from models.records.columns import Json

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("labels", Json, nullable=False),
        sa.Column("spec", Json, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double()),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_experiments_key_id_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
    )
    op.create_index(op.f("ix_experiments_key_id_id"), "experiments", ["key_id", "id"])
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("experiment_id", sa.String(64)))
        jobs.add_column(sa.Column("variant", sa.String(255)))
        jobs.create_foreign_key(op.f("fk_jobs_experiment_id_experiments"), "experiments", ["experiment_id"], ["id"])
    op.create_index(op.f("ix_jobs_experiment_id"), "jobs", ["experiment_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_experiment_id"), table_name="jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("fk_jobs_experiment_id_experiments"), type_="foreignkey")
        jobs.drop_column("variant")
        jobs.drop_column("experiment_id")
    op.drop_index(op.f("ix_experiments_key_id_id"), table_name="experiments")
    op.drop_table("experiments")
