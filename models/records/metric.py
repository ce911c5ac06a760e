"""Metrics of jobs."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt


class Metric(Record):
    """One value of a metric.

    Unique by job, name and step: after a resume, the value of the newer attempt replaces the old one. `value` is null if
    it was infinite or NaN.
    """

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    attempt: Mapped[int]
    created_at: Mapped[CreatedAt]
