"""The transactional outbox of webhooks: the delivery of a job's change of status is written with the change itself."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from models.database import now
from models.records import Job, WebhookDelivery
from models.records.columns import new_id
from models.spec.webhook_target import target_of

REPORTED = (
    Job.id, Job.name, Job.labels, Job.status, Job.phase, Job.reason, Job.attempt, Job.priority, Job.error,
    Job.stopped_early, Job.retry_of, Job.version, Job.created_at, Job.started_at, Job.finished_at,
)  # fmt: skip
"""The columns of a job that a message contains, under the API's field names."""


def announce(session: Session, job_id: str) -> str | None:
    """Write a delivery if the job's webhook includes its new status; returns its id, None without a delivery.

    Call it after the UPDATE, in the same transaction, so that change and delivery are committed together.
    """
    row = session.execute(select(Job.key_id, Job.resolved, now().label("at"), *REPORTED).where(Job.id == job_id)).one()
    webhook, type = row.resolved.get("webhook"), f"job.{row.status}"
    if not webhook or type not in webhook["events"] or _is_disabled(session, job_id):
        return None
    delivery = WebhookDelivery(
        id=new_id("msg"), job_id=job_id, key_id=row.key_id, type=type, url=webhook["url"],
        origin=target_of(webhook["url"]).origin, body=_message(type, row.at, row._mapping),
    )  # fmt: skip
    session.add(delivery)
    return delivery.id


def _is_disabled(session: Session, job_id: str) -> bool:
    disabled = WebhookDelivery.job_id == job_id, WebhookDelivery.status == "disabled"
    return bool(session.scalar(select(exists().where(*disabled))))


def _message(type: str, at: float, row: Any) -> str:
    values = {column.key: row[column.key] for column in REPORTED}
    times = {name: _time(value) for name, value in values.items() if name.endswith("_at") and value is not None}
    data = values | times
    return json.dumps({"type": type, "timestamp": _time(at), "data": data}, ensure_ascii=False, allow_nan=False)


def _time(seconds: float) -> str:
    """A time in the API's format."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
