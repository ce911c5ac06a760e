"""When work of each key was last claimed, for fair scheduling between keys."""

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record


class Share(Record):
    """When work of one key in one queue was last claimed; `line` is the queue: `jobs` or `inspections`."""

    __tablename__ = "shares"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[str] = mapped_column(String(16), primary_key=True)
    served_at: Mapped[float] = mapped_column(Double)
