"""Runs of an MLflow server that follow jobs."""

from sqlalchemy import Double, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, JsonList, JsonObject, partial_index


class MlflowRun(Record):
    """The run that follows one job, inserted in the transaction that starts its first attempt.

    `run_id` is the server's id of the run. `status` is pending, sent, or failed (given up). `described` is set once parameters
    and tags are sent, `metrics` holds the newest sent step of every metric, `files` the names of the sent artifacts. A claim moves
    `due_at` past its end and raises `attempt`, which fences later writes. `failures` counts failed tries in a row.
    """

    __tablename__ = "mlflow_runs"
    __table_args__ = (partial_index("due_at", where="status = 'pending'"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), default="pending")
    described: Mapped[bool] = mapped_column(default=False)
    metrics: Mapped[JsonObject] = mapped_column(default=dict)
    files: Mapped[JsonList] = mapped_column(default=list)
    attempt: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    due_at: Mapped[CreatedAt]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[float | None] = mapped_column(Double)
