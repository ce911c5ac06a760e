"""API keys, stored as hashes."""

from typing import Any

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, Json, JsonList, ShortText


class Key(Record):
    """One API key.

    `hash` is the SHA-256 of the whole key, in hex. `previous_hash` is that of the secret before the last rotation, which is
    valid until `previous_until`. `limits` holds only the limits that differ from the settings.
    """

    __tablename__ = "keys"

    id: Mapped[Identifier]
    name: Mapped[ShortText]
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    previous_hash: Mapped[str | None] = mapped_column(String(64), unique=True, index=True)
    previous_until: Mapped[float | None] = mapped_column(Double)
    scopes: Mapped[JsonList] = mapped_column(default=list)
    limits: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
