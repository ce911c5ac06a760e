"""Where a job can be resumed."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, JsonObject


class Checkpoint(Record):
    """`manifest` is the engine's: a step, and parts by name with SHA-256 and size. A part lies in storage at
    `jobs/JOB/parts/SHA256`; the newest two checkpoints are kept."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step"),)

    id: Mapped[Identifier]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    step: Mapped[int]
    manifest: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]
