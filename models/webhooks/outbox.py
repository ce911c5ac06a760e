"""The outbox: what is to be delivered of a job's change of status, written in the transaction of the change."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from models.database import now
from models.records import Job, WebhookDelivery
from models.records.columns import new_id
from models.spec.webhook_target import target_of

TOLD = (
    Job.id, Job.name, Job.labels, Job.status, Job.phase, Job.reason, Job.attempt, Job.priority, Job.error,
    Job.stopped_early, Job.retry_of, Job.version, Job.created_at, Job.started_at, Job.finished_at,
)  # fmt: skip
"""What a message says of a job, by the names by which the API shows it."""


def announce(session: Session, job_id: str) -> str | None:
    """Write a delivery if the job's owner wants to be told of its new status; returns its id.

    Call it after the UPDATE, in its transaction: the message then says what the change made true, or neither is there.
    """
    row = session.execute(select(Job.key_id, Job.resolved, now().label("at"), *TOLD).where(Job.id == job_id)).one()
    wanted, type = row.resolved.get("webhook"), f"job.{row.status}"
    if not wanted or type not in wanted["events"] or _gone(session, job_id):
        return None
    delivery = WebhookDelivery(
        id=new_id("msg"), job_id=job_id, key_id=row.key_id, type=type, url=wanted["url"],
        origin=target_of(wanted["url"]).origin, body=_message(type, row.at, row._mapping),
    )  # fmt: skip
    session.add(delivery)
    return delivery.id


def _gone(session: Session, job_id: str) -> bool:
    said_410 = WebhookDelivery.job_id == job_id, WebhookDelivery.status == "disabled"
    return bool(session.scalar(select(exists().where(*said_410))))


def _message(type: str, at: float, row: Any) -> str:
    told = {column.key: row[column.key] for column in TOLD}
    data = told | {name: _moment(value) for name, value in told.items() if name.endswith("_at") and value is not None}
    return json.dumps({"type": type, "timestamp": _moment(at), "data": data}, ensure_ascii=False, allow_nan=False)


def _moment(seconds: float) -> str:
    """As the API writes a time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
