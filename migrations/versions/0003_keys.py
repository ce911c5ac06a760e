"""Scopes and limits of keys, and fair scheduling.

Revision: 0003
Follows: 0002
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from models.records.columns import Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCOPES = ["jobs:read", "jobs:write", "uploads:read", "uploads:write", "admin"]
LIMITS = "limits:"
KEYS = sa.table("keys", sa.column("id", sa.String), sa.column("scopes", Json), sa.column("limits", Json))
OWNERS = ("teachers", "datasets", "files", "jobs")


def upgrade() -> None:
    _widen_keys()
    for table in ("jobs", "inspections"):
        op.add_column(table, sa.Column("needs", sa.String(96), nullable=False, server_default="1 * 0"))
        op.add_column(table, sa.Column("rank", sa.Integer(), nullable=False, server_default="0"))
        op.execute(f"UPDATE {table} SET rank = -priority WHERE priority <> 0")
    op.add_column("inspections", sa.Column("key_id", sa.String(64), nullable=False, server_default=""))
    owners = ", ".join(f"(SELECT key_id FROM {table} WHERE id = subject_id)" for table in OWNERS)
    op.execute(f"UPDATE inspections SET key_id = coalesce({owners}, '') WHERE status IN ('queued', 'running')")
    op.create_table(
        "shares",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("line", sa.String(16), nullable=False),
        sa.Column("served_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "line", name=op.f("pk_shares")),
    )
    _index("jobs", "status", "ready", "needs", "key_id", "rank", "id")
    _index("jobs", "cancel_requested_at", where="status = 'queued' AND cancel_requested_at IS NOT NULL")
    _index("jobs", "key_id", "status", "id")
    _index("inspections", "status", "needs", "key_id", "rank", "id")
    op.drop_index(op.f("ix_jobs_status_ready_priority_due_at"), table_name="jobs")


def downgrade() -> None:
    _index("jobs", "status", "ready", "priority", "due_at")
    for table, columns in (
        ("inspections", "status_needs_key_id_rank_id"),
        ("jobs", "key_id_status_id"),
        ("jobs", "cancel_requested_at"),
        ("jobs", "status_ready_needs_key_id_rank_id"),
    ):
        op.drop_index(op.f(f"ix_{table}_{columns}"), table_name=table)
    op.drop_table("shares")
    with op.batch_alter_table("inspections") as inspections:
        inspections.drop_column("key_id")
        inspections.drop_column("rank")
        inspections.drop_column("needs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("rank")
        jobs.drop_column("needs")
    _remember_limits()
    op.drop_index(op.f("ix_keys_previous_hash"), table_name="keys")
    with op.batch_alter_table("keys") as keys:
        keys.drop_column("limits")
        keys.drop_column("previous_until")
        keys.drop_column("previous_hash")


def _widen_keys() -> None:
    """Add scopes and limits. Existing keys could do everything so far, so they get all scopes."""
    op.add_column("keys", sa.Column("previous_hash", sa.String(64)))
    op.add_column("keys", sa.Column("previous_until", sa.Double()))
    op.add_column("keys", sa.Column("limits", Json))
    op.create_index(op.f("ix_keys_previous_hash"), "keys", ["previous_hash"], unique=True)
    for identifier, scopes, _ in _keys():
        kept = [scope for scope in scopes if not scope.startswith(LIMITS)]
        limits = next((json.loads(scope.removeprefix(LIMITS)) for scope in scopes if scope.startswith(LIMITS)), None)
        _set(identifier, scopes=kept if scopes else SCOPES, limits=limits or None)


def _remember_limits() -> None:
    """Keep the limits of keys among their scopes, which the older version ignores, for the next upgrade."""
    for identifier, scopes, limits in _keys():
        _set(identifier, scopes=[*scopes, LIMITS + json.dumps(limits)])


def _keys() -> Sequence[Any]:
    return op.get_bind().execute(sa.select(KEYS.c.id, KEYS.c.scopes, KEYS.c.limits)).all()


def _set(identifier: str, **values: Any) -> None:
    typed = {name: sa.bindparam(name, value, type_=Json) for name, value in values.items()}
    op.execute(KEYS.update().where(KEYS.c.id == identifier).values(**typed))


def _index(table: str, *columns: str, where: str | None = None) -> None:
    name = op.f(f"ix_{table}_{'_'.join(columns)}")
    partly = sa.text(where) if where else None
    op.create_index(name, table, list(columns), postgresql_where=partly, sqlite_where=partly)
