"""Experiments: several jobs that were submitted together."""

from sqlalchemy import Double, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, JsonObject, ShortText


class Experiment(Record):
    """Jobs that differ in some fields of one spec. `spec` is the body that the user sent; each job names its experiment
    and its variant."""

    __tablename__ = "experiments"
    __table_args__ = (Index(None, "key_id", "id"),)

    id: Mapped[Identifier]
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"))
    name: Mapped[ShortText]
    labels: Mapped[JsonObject] = mapped_column(default=dict)
    spec: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]
    deleted_at: Mapped[float | None] = mapped_column(Double)
