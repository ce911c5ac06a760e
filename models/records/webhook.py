"""Webhooks: signing secrets and deliveries."""

from sqlalchemy import Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Record
from models.records.columns import CreatedAt, Identifier, JsonList, partial_index


class WebhookSecret(Record):
    """A secret that signs the deliveries of a key.

    The newest one is current. After a rotation the previous one signs too, until it expires. `number` counts from 1, so
    that two processes cannot both insert the first secret of a key.
    """

    __tablename__ = "webhook_secrets"

    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[float | None] = mapped_column(Double)


class WebhookDelivery(Record):
    """One message to one receiver, inserted in the transaction that changed the job.

    `id` is the `webhook-id` and `body` the bytes of every try. `status` is pending, delivered, failed, or disabled (the
    receiver responded with 410). A claim moves `due_at` past the end of its try and raises `attempt`, which fences later
    writes. `pauses` counts the used pauses of the retry schedule. `tries` holds the time, status code and kind of error of
    each try.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "job_id"),
        partial_index("due_at", where="status = 'pending'"),
        partial_index("finished_at", where="finished_at IS NOT NULL"),
    )

    id: Mapped[Identifier]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"))
    type: Mapped[str] = mapped_column(String(32))
    url: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    attempt: Mapped[int] = mapped_column(default=0)
    pauses: Mapped[int] = mapped_column(default=0)
    tries: Mapped[JsonList] = mapped_column(default=list)
    due_at: Mapped[CreatedAt]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[float | None] = mapped_column(Double)
