"""Attempts at jobs."""

from typing import Any

from sqlalchemy import Double, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Json

HAS_LOG = text("log_key IS NOT NULL")


class Attempt(Record):
    """One try at a job by one worker.

    `outcome` is null while it runs, then succeeded, failed, cancelled, drained or lost. `seconds` is its duration: until
    its end, or until the last heartbeat if its worker was lost.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        Index(None, "ended_at"),
        Index("ix_attempts_logged", "ended_at", postgresql_where=HAS_LOG, sqlite_where=HAS_LOG),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    log_key: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[CreatedAt]
    seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    ended_at: Mapped[float | None] = mapped_column(Double)
