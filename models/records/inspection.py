"""Work of inspect workers: reading an upload, or checking a spec by building its networks."""

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, Json, Leased, Time


class Inspection(Leased, Record):
    """One inspection. `kind` is `teacher`, `dataset`, `file`, `job` or `check`; `subject_id` is the inspected record.

    A `check` has no other record: it validates a spec for a request. It holds the spec (`resolved`) and the result
    (`facts` or `error`) itself, its `subject_id` is its own id, and the request deletes it afterwards.
    """

    __tablename__ = "inspections"
    __table_args__ = (
        Index(None, "status", "due_at"),
        Index(None, "subject_id"),
        Index(None, "status", "needs", "key_id", "rank", "id"),
        Index(None, "finished_at"),
        Index(None, "kind", "created_at"),
    )

    id: Mapped[Identifier]
    kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(64), default="", server_default="")
    status: Mapped[str] = mapped_column(String(16), default="queued")
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    resolved: Mapped[dict[str, Any] | None] = mapped_column(Json)
    facts: Mapped[dict[str, Any] | None] = mapped_column(Json)
    request_id: Mapped[str | None] = mapped_column(String(128))
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Time | None]
