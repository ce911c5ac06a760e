"""Idempotency keys of requests."""

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt


class Idempotency(Record):
    """The `Idempotency-Key` of a POST, the fingerprint of its body, and the job created in the same transaction."""

    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "job_id"), Index(None, "created_at"))

    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
