"""The dataset by whose labelled images a teacher is recognised.

Revision: 0009
Follows: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("teachers", sa.Column("dataset", sa.String(64)))


def downgrade() -> None:
    with op.batch_alter_table("teachers") as teachers:
        teachers.drop_column("dataset")
