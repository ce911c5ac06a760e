"""Work of the inspect queue: reading an upload, or checking a job's spec by building its networks."""

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, Json, Leased, Time


class Inspection(Leased, Record):
    """`kind` is `teacher`, `dataset`, `file` or `job`; `subject_id` the record that is inspected."""

    __tablename__ = "inspections"
    __table_args__ = (Index(None, "status", "due_at"), Index(None, "subject_id"))

    id: Mapped[Identifier]
    kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Time | None]
