"""Further files of the canonical form of an upload, uploads that are sent in several ranges, and
datasets by reference.

Revision: 0013
Follows: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = ("teachers", "datasets", "files")
COLUMNS = ("blob_parts", "upload_parts")


def upgrade() -> None:
    for table in TABLES:
        for column in COLUMNS:
            kind = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
            op.add_column(table, sa.Column(column, kind, nullable=True))
    op.add_column("datasets", sa.Column("source", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("datasets", "source")
    for table in TABLES:
        for column in COLUMNS:
            op.drop_column(table, column)
