"""Column types and mixins that several tables share."""

from typing import Annotated, Any

import uuid6
from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from models.database import now

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Identifier = Annotated[str, mapped_column(String(64), primary_key=True)]
ShortText = Annotated[str, mapped_column(String(255))]
LongText = Annotated[str, mapped_column(Text)]
Time = Annotated[float, mapped_column(Double)]
CreatedAt = Annotated[float, mapped_column(Double, default=now())]
JsonObject = Annotated[dict[str, Any], mapped_column(Json)]
JsonList = Annotated[list[Any], mapped_column(Json)]
KeyId = Annotated[str, mapped_column(ForeignKey("keys.id"), index=True)]


def new_id(prefix: str) -> str:
    """A prefix and a UUIDv7, so that ids sort by time: `job_0190f3…`."""
    return f"{prefix}_{uuid6.uuid7().hex}"


def partial_index(*columns: str, where: str) -> Index:
    """A partial index. Only queries that contain the same condition, with the same literals, use it."""
    return Index(None, *columns, postgresql_where=text(where), sqlite_where=text(where))


def _negated_priority(context: Any) -> int:
    return -(context.get_current_parameters().get("priority") or 0)


class Leased:
    """Work that at most one worker holds at a time.

    `attempt` is the fencing token: it rises at every claim, and every write of a worker has it in its WHERE. `losses`
    counts consecutive attempts that were lost without progress. `needs` describes the workers that can take the row
    (`models.scheduling.resources`). `rank` is the negated priority, so that one ascending index yields the row with the
    highest priority and, among these, the oldest. `woken_at` is when the last wake-up message was sent.
    """

    needs: Mapped[str] = mapped_column(String(96), default="1 * 0", server_default="1 * 0")
    priority: Mapped[int] = mapped_column(default=0)
    rank: Mapped[int] = mapped_column(default=_negated_priority, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[float | None] = mapped_column(Double)
    due_at: Mapped[float] = mapped_column(Double, default=now())
    woken_at: Mapped[float | None] = mapped_column(Double)


class Uploaded:
    """Columns of teachers, datasets and files: bytes that are sent by PUT and inspected before any job uses them."""

    id: Mapped[Identifier]
    name: Mapped[ShortText]
    labels: Mapped[JsonObject] = mapped_column(default=dict)
    status: Mapped[str] = mapped_column(String(16), default="waiting")
    upload_key: Mapped[str | None] = mapped_column(Text)
    upload_parts: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """The bytes as sent, if they came in several ranges: `key`, `size` and `sha256` of each, in order. Then `upload_key` is None."""
    size: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    blob_key: Mapped[str | None] = mapped_column(Text)
    blob_size: Mapped[int | None] = mapped_column(BigInteger)
    blob_sha256: Mapped[str | None] = mapped_column(String(64))
    blob_parts: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """The further files of the canonical form, `sha256` and `size` of each; `blob_size` counts them too."""
    findings: Mapped[dict[str, Any] | None] = mapped_column(Json)
    problem: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    deleted_at: Mapped[float | None] = mapped_column(Double)

    @declared_attr
    @classmethod
    def key_id(cls) -> Mapped[str]:
        return mapped_column(ForeignKey("keys.id"))

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Any, ...]:
        return Index(None, "key_id", "id"), partial_index("status", "updated_at", where="deleted_at IS NULL")
