"""Duration of attempts, and what stopped a job's training early.

Revision: 0006
Follows: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("seconds", sa.Double(), nullable=False, server_default="0"))
    op.execute("UPDATE attempts SET seconds = ended_at - started_at WHERE ended_at > started_at")
    op.add_column("jobs", sa.Column("stopped_early", sa.String(32)))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("stopped_early")
    with op.batch_alter_table("attempts") as attempts:
        attempts.drop_column("seconds")
