"""Sessions of browsers."""

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt


class BrowserSession(Record):
    """A browser that has signed in with a key. `hash` is the SHA-256 of its cookie, in hex."""

    __tablename__ = "sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[float] = mapped_column(Double, index=True)
