"""Jobs: spec, status and lease."""

from typing import Any

from sqlalchemy import Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, Json, JsonObject, Leased, ShortText, partial_index


class Job(Leased, Record):
    """One distillation.

    `spec` is the body that the user sent, `resolved` has every default written out. `ready` is set once all inputs are
    inspected and the check of the spec has passed; until then `reason` says what the job waits for. `event_seq` is the
    number of the newest event. `student` describes the exported student: network, options, classes, class_names, input,
    and in `added_by` the objectives that added modules to it. `artifacts_removed_at` is set when the artifacts are
    removed, `history_removed_at` when events and metrics are. `request_id` is the id of the request that submitted the
    job. `experiment_id` and `variant` say to which experiment the job belongs. `version` rises at every change that a reader can see.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "key_id", "id"),
        Index(None, "key_id", "status", "id"),
        Index(None, "status", "ready", "needs", "key_id", "rank", "id"),
        partial_index("cancel_requested_at", where="status = 'queued' AND cancel_requested_at IS NOT NULL"),
        Index(None, "status", "lease_expires_at"),
        Index(None, "status", "finished_at"),
        Index(None, "teacher_id"),
        Index(None, "dataset_id"),
        Index(None, "experiment_id"),
        partial_index("deleted_at", where="deleted_at IS NOT NULL AND history_removed_at IS NULL"),
        partial_index("finished_at", where="deleted_at IS NULL AND history_removed_at IS NULL"),
    )

    id: Mapped[Identifier]
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"))
    name: Mapped[ShortText]
    labels: Mapped[JsonObject] = mapped_column(default=dict)
    status: Mapped[str] = mapped_column(String(16), default="queued")
    phase: Mapped[str | None] = mapped_column(String(32))
    phases: Mapped[JsonObject] = mapped_column(default=dict)
    stage: Mapped[str | None] = mapped_column(String(255))
    ready: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(Text)
    spec: Mapped[JsonObject]
    resolved: Mapped[JsonObject]
    teacher_id: Mapped[str | None] = mapped_column(ForeignKey("teachers.id"))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    evaluation_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    student: Mapped[dict[str, Any] | None] = mapped_column(Json)
    stopped_early: Mapped[str | None] = mapped_column(String(32))
    cancel_requested_at: Mapped[float | None] = mapped_column(Double)
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    experiment_id: Mapped[str | None] = mapped_column(ForeignKey("experiments.id"))
    variant: Mapped[str | None] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(128))
    event_seq: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[CreatedAt]
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    deleted_at: Mapped[float | None] = mapped_column(Double)
    artifacts_removed_at: Mapped[float | None] = mapped_column(Double)
    history_removed_at: Mapped[float | None] = mapped_column(Double)
