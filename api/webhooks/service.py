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
    """Create a secret for a key; the previous one signs too for one day."""
    with transaction() as session:
        rotated = signing_secrets.rotate(session, key_id)
        made = rotated.record
        values = {"secret": made.secret, "created_at": made.created_at, "previous_until": rotated.previous_until}
        return NewSecretBody.model_validate(values)


def show_secret(key_id: str) -> SecretBody:
    """When a key's secret was created.

    Raises:
        NotFound: the key has no secret.
    """
    with reading() as session:
        active = signing_secrets.current(session, key_id)
    if not active:
        raise NotFound("This key has no webhook secret. Create one: POST /v1/webhooks/secret.")
    previous = active[1].expires_at if len(active) > 1 else None
    return SecretBody.model_validate({"created_at": active[0].created_at, "previous_until": previous})


def deliveries(key_id: str, job_id: str, window: Window) -> Page[DeliveryBody]:
    """One page of a job's deliveries."""
    with reading() as session:
        find(session, key_id, job_id)
        query = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
        return window.page(session, query, WebhookDelivery.id, delivery_body)


def redeliver(key_id: str, job_id: str, delivery_id: str) -> DeliveryBody:
    """Deliver a finished message again, with the same id and the whole schedule of tries.

    Raises:
        NotFound: the job has no such delivery.
        Conflict: the delivery is still pending.
    """
    with transaction() as session:
        find(session, key_id, job_id)
        mine = WebhookDelivery.id == delivery_id, WebhookDelivery.job_id == job_id
        if session.scalar(select(WebhookDelivery.id).where(*mine)) is None:
            raise NotFound(f"The job {job_id} has no webhook delivery {delivery_id}.")
        reset = {"status": "pending", "due_at": now(), "finished_at": None, "pauses": 0}
        finished = WebhookDelivery.status != "pending"
        changed = session.scalar(
            update(WebhookDelivery).where(*mine, finished).values(**reset).returning(WebhookDelivery.id)
        )
        if changed is None:
            raise Conflict("The delivery is still pending. It is retried automatically: see 'next_try_at'.")
        return delivery_body(session.get_one(WebhookDelivery, changed, populate_existing=True))


def delivery_body(row: WebhookDelivery) -> DeliveryBody:
    """The response body of a delivery."""
    values = {column.key: getattr(row, column.key) for column in WebhookDelivery.__table__.columns}
    pending = row.status == "pending"
    links = {} if pending else {"redeliver": link(f"/jobs/{row.job_id}/webhook-deliveries/{row.id}/redeliver")}
    found = {"body": json.loads(row.body), "next_try_at": row.due_at if pending else None, "links": links}
    return DeliveryBody.model_validate(values | found)
