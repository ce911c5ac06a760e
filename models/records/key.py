"""API keys: only a hash is kept."""

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, JsonList, ShortText


class Key(Record):
    """`hash` is the SHA-256 of the whole key, in hex."""

    __tablename__ = "keys"

    id: Mapped[Identifier]
    name: Mapped[ShortText]
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[JsonList] = mapped_column(default=list)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
