"""Webhook deliveries: claiming due ones, and recording the outcome of a try."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, literal_column, select, update
from sqlalchemy.orm import Session

from models.database import now, once_now, reading, transaction
from models.records import WebhookDelivery
from models.settings import settings
from models.webhooks import signing_secrets

MARGIN_SECONDS = 45.0
"""Time after the deadline of a try within which it has certainly ended, DNS lookup included; then another worker may
claim the delivery."""
JITTER = 0.2
PENDING: ColumnElement[str] = literal_column("'pending'")
"""A literal, so that the database can use the partial index of pending deliveries."""
GONE = 410


@dataclass(frozen=True)
class DueDelivery:
    """One try at a delivery: body, URL and signing secrets. `sent_at` is the database's time."""

    id: str
    attempt: int
    key_id: str
    url: str
    origin: str
    body: str
    pauses: int
    secrets: Sequence[str]
    sent_at: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of a try: the status code of the response, or the kind of error if there was none."""

    status_code: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


def due(busy_origins: Collection[str], busy_keys: Collection[str]) -> Select[str]:
    """Ids of the due deliveries, except to busy receivers or of busy keys; those due the longest come first."""
    waiting = WebhookDelivery.status == PENDING, WebhookDelivery.due_at <= once_now()
    idle = WebhookDelivery.origin.not_in(busy_origins), WebhookDelivery.key_id.not_in(busy_keys)
    return select(WebhookDelivery.id).where(*waiting, *idle).order_by(WebhookDelivery.due_at)


def claim(busy_origins: Collection[str], busy_keys: Collection[str]) -> DueDelivery | None:
    """Claim the next delivery of `due`; None if there is none."""
    query = due(busy_origins, busy_keys).limit(1)
    with reading() as session:
        if session.scalar(query) is None:
            return None
    with transaction() as session:
        identifier = session.scalar(query.with_for_update(skip_locked=True))
        return None if identifier is None else _take(session, identifier)


def _take(session: Session, identifier: str) -> DueDelivery:
    row = session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == identifier)
        .values(attempt=WebhookDelivery.attempt + 1, due_at=now() + settings().webhook_seconds + MARGIN_SECONDS)
        .returning(
            WebhookDelivery.attempt, WebhookDelivery.key_id, WebhookDelivery.url, WebhookDelivery.origin,
            WebhookDelivery.body, WebhookDelivery.pauses, now().label("at"),
        )
        .execution_options(synchronize_session=False)
    ).one()  # fmt: skip
    secrets = signing_secrets.signing(session, row.key_id)
    return DueDelivery(identifier, row.attempt, row.key_id, row.url, row.origin, row.body, row.pauses, secrets, row.at)


def settle(delivery: DueDelivery, outcome: Outcome) -> str | None:
    """Record the outcome of a try; returns the delivery's status, None if another worker has taken it over.

    If the receiver responds with 410, the webhook of this job is disabled.
    """
    pauses = settings().webhook_pauses
    finished = outcome.delivered or outcome.status_code == GONE or delivery.pauses >= len(pauses)
    with transaction() as session:
        mine = WebhookDelivery.id == delivery.id, WebhookDelivery.attempt == delivery.attempt
        row = session.scalar(
            select(WebhookDelivery).where(*mine, WebhookDelivery.status == "pending").with_for_update()
        )
        if row is None:
            return None
        at = session.scalars(select(now())).one()
        row.tries = [*row.tries, {"at": delivery.sent_at, "status_code": outcome.status_code, "error": outcome.error}]
        if finished:
            row.finished_at = at
            row.status = _final_status(outcome)
        else:
            row.pauses = delivery.pauses + 1
            row.due_at = at + pauses[delivery.pauses] * (1 + random.uniform(0, JITTER))
        if row.status == "disabled":
            others = WebhookDelivery.job_id == row.job_id, WebhookDelivery.status == "pending"
            session.flush()
            session.execute(update(WebhookDelivery).where(*others).values(status="disabled", finished_at=at))
        return row.status


def _final_status(outcome: Outcome) -> str:
    if outcome.delivered:
        return "delivered"
    return "disabled" if outcome.status_code == GONE else "failed"
