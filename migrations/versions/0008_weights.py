"""Which weights of a teacher's file are read.

Revision: 0008
Follows: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("teachers", sa.Column("weights", sa.String(255), nullable=False, server_default="auto"))


def downgrade() -> None:
    with op.batch_alter_table("teachers") as teachers:
        teachers.drop_column("weights")
