"""Checkpoints of jobs."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, JsonObject


class Checkpoint(Record):
    """A state from which a job can be resumed.

    `manifest` comes from the engine: a step, and parts by name with SHA-256 and size. A part is stored at
    `jobs/JOB/parts/SHA256`. The newest two checkpoints of a job are kept.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step"),)

    id: Mapped[Identifier]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    step: Mapped[int]
    manifest: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]
