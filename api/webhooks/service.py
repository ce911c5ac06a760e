"""Webhook secrets and deliveries in the database."""

import json

from sqlalchemy import select, update

from api.http.errors import Conflict, NotFound
from api.http.links import link
from api.http.paging import Page, Window
from api.jobs.service import find
from api.webhooks.schemas import DeliveryBody, NewSecretBody, SecretBody
from models.database import now, reading, transaction
from models.records import WebhookDelivery
from models.webhooks import signing_secrets


def make_secret(key_id: str) -> NewSecretBody:
    """A new secret for a key; the one before signs too for a day."""
    with transaction() as session:
        rotated = signing_secrets.rotate(session, key_id)
        made = rotated.record
        values = {"secret": made.secret, "created_at": made.created_at, "previous_until": rotated.previous_until}
        return NewSecretBody.model_validate(values)


def show_secret(key_id: str) -> SecretBody:
    """When a key's secret was made.

    Raises:
        NotFound: it has none yet.
    """
    with reading() as session:
        alive = signing_secrets.current(session, key_id)
    if not alive:
        raise NotFound("This key has no webhook secret yet: POST here to make one.")
    previous = alive[1].expires_at if len(alive) > 1 else None
    return SecretBody.model_validate({"created_at": alive[0].created_at, "previous_until": previous})


def deliveries(key_id: str, job_id: str, window: Window) -> Page[DeliveryBody]:
    """What is, was and could not be delivered of a job."""
    with reading() as session:
        find(session, key_id, job_id)
        query = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
        return window.page(session, query, WebhookDelivery.id, shown)


def redeliver(key_id: str, job_id: str, delivery_id: str) -> DeliveryBody:
    """Send a message again that is over, under its id, with a schedule from its beginning.

    Raises:
        Conflict: it is still being tried.
    """
    with transaction() as session:
        find(session, key_id, job_id)
        mine = WebhookDelivery.id == delivery_id.replace("\0", ""), WebhookDelivery.job_id == job_id
        if session.scalar(select(WebhookDelivery.id).where(*mine)) is None:
            raise NotFound(f"The job has no webhook delivery {delivery_id}.")
        again = {"status": "pending", "due_at": now(), "finished_at": None, "pauses": 0}
        over = WebhookDelivery.status != "pending"
        changed = session.scalar(
            update(WebhookDelivery).where(*mine, over).values(**again).returning(WebhookDelivery.id)
        )
        if changed is None:
            raise Conflict("The delivery is still pending: it is tried again by itself.")
        return shown(session.get_one(WebhookDelivery, changed, populate_existing=True))


def shown(row: WebhookDelivery) -> DeliveryBody:
    """A row as an answer."""
    values = {column.key: getattr(row, column.key) for column in WebhookDelivery.__table__.columns}
    pending = row.status == "pending"
    links = {} if pending else {"redeliver": link(f"/jobs/{row.job_id}/webhook-deliveries/{row.id}/redeliver")}
    found = {"body": json.loads(row.body), "next_try_at": row.due_at if pending else None, "links": links}
    return DeliveryBody.model_validate(values | found)
