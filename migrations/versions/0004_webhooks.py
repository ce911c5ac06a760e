"""Webhooks and retention.

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

from models.records.columns import Json

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPLOADS = ("teachers", "datasets", "files")
KEPT = "deleted_at IS NULL AND history_removed_at IS NULL"
DELETED = "deleted_at IS NOT NULL AND history_removed_at IS NULL"


def upgrade() -> None:
    _create_tables()
    op.add_column("jobs", sa.Column("artifacts_removed_at", sa.Double()))
    op.add_column("jobs", sa.Column("history_removed_at", sa.Double()))
    op.drop_index(op.f("ix_jobs_deleted_at"), table_name="jobs")
    _index("jobs", "deleted_at", where=DELETED)
    _index("jobs", "finished_at", where=KEPT)
    _index("attempts", "ended_at", where="log_key IS NOT NULL", name="ix_attempts_logged")
    _index("artifacts", "created_at")
    _index("previews", "created_at")
    _index("idempotency", "created_at")
    for table in UPLOADS:
        _index(table, "status", "updated_at", where="deleted_at IS NULL")


def downgrade() -> None:
    for table in UPLOADS:
        op.drop_index(op.f(f"ix_{table}_status_updated_at"), table_name=table)
    for table in ("idempotency", "previews", "artifacts"):
        op.drop_index(op.f(f"ix_{table}_created_at"), table_name=table)
    op.drop_index("ix_attempts_logged", table_name="attempts")
    op.drop_index(op.f("ix_jobs_finished_at"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_deleted_at"), table_name="jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("history_removed_at")
        jobs.drop_column("artifacts_removed_at")
    _index("jobs", "deleted_at")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_secrets")


def _create_tables() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_webhook_secrets_key_id_keys")),
        sa.PrimaryKeyConstraint("key_id", "number", name=op.f("pk_webhook_secrets")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("pauses", sa.Integer(), nullable=False),
        sa.Column("tries", Json, nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_webhook_deliveries_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_webhook_deliveries_key_id_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    _index("webhook_deliveries", "job_id")
    _index("webhook_deliveries", "due_at", where="status = 'pending'")
    _index("webhook_deliveries", "finished_at", where="finished_at IS NOT NULL")


def _index(table: str, *columns: str, where: str | None = None, name: str | None = None) -> None:
    partly = sa.text(where) if where else None
    name = name or op.f(f"ix_{table}_{'_'.join(columns)}")
    op.create_index(name, table, list(columns), postgresql_where=partly, sqlite_where=partly)
