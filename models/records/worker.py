"""Worker processes."""

from typing import Any

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, Json


class Worker(Record):
    """One worker process. `kind` is `distill` or `inspect`; `busy_with` is the id of the job or inspection that it holds."""

    __tablename__ = "workers"

    id: Mapped[Identifier]
    kind: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    process: Mapped[int]
    about: Mapped[dict[str, Any] | None] = mapped_column(Json)
    busy_with: Mapped[str | None] = mapped_column(String(64))
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[CreatedAt]
    left_at: Mapped[float | None] = mapped_column(Double)
