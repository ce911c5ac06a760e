"""Webhook deliveries: claiming those that are due, and what came of a try."""

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
"""A try is over this long after its receiver's time at the latest, the search for its address included; then another
worker may take the delivery."""
JITTER = 0.2
PENDING: ColumnElement[str] = literal_column("'pending'")
"""Written out, so that the index of pending deliveries serves."""
GONE = 410


@dataclass(frozen=True)
class DueDelivery:
    """One try at a delivery: what is sent where, signed by which secrets. `sent_at` is the database's time."""

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
    """What came of a try: a status code, or the kind of error that kept one from coming."""

    status_code: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


def due(busy_origins: Collection[str], busy_keys: Collection[str]) -> Select[str]:
    """Ids of the deliveries that are due to nobody who is busy, the longest due first."""
    waiting = WebhookDelivery.status == PENDING, WebhookDelivery.due_at <= once_now()
    idle = WebhookDelivery.origin.not_in(busy_origins), WebhookDelivery.key_id.not_in(busy_keys)
    return select(WebhookDelivery.id).where(*waiting, *idle).order_by(WebhookDelivery.due_at)


def claim(busy_origins: Collection[str], busy_keys: Collection[str]) -> DueDelivery | None:
    """Take a due delivery to nobody who is busy; None if there is none."""
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
    """Write what came of a try; returns the delivery's status, None if it was taken over meanwhile.

    A receiver that says 410 is told nothing more of this job.
    """
    pauses = settings().webhook_pauses
    over = outcome.delivered or outcome.status_code == GONE or delivery.pauses >= len(pauses)
    with transaction() as session:
        mine = WebhookDelivery.id == delivery.id, WebhookDelivery.attempt == delivery.attempt
        row = session.scalar(
            select(WebhookDelivery).where(*mine, WebhookDelivery.status == "pending").with_for_update()
        )
        if row is None:
            return None
        at = session.scalars(select(now())).one()
        row.tries = [*row.tries, {"at": delivery.sent_at, "status_code": outcome.status_code, "error": outcome.error}]
        if over:
            row.finished_at = at
            row.status = _ending(outcome)
        else:
            row.pauses = delivery.pauses + 1
            row.due_at = at + pauses[delivery.pauses] * (1 + random.uniform(0, JITTER))
        if row.status == "disabled":
            others = WebhookDelivery.job_id == row.job_id, WebhookDelivery.status == "pending"
            session.flush()
            session.execute(update(WebhookDelivery).where(*others).values(status="disabled", finished_at=at))
        return row.status


def _ending(outcome: Outcome) -> str:
    if outcome.delivered:
        return "delivered"
    return "disabled" if outcome.status_code == GONE else "failed"
