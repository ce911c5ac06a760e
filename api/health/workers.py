"""Whether workers are running that can take waiting work."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from models.database import now
from models.queue.wake_up import Kind
from models.records import Worker
from models.scheduling.resources import Machine, ResourceNeeds, any_fits
from models.settings import settings


def is_recent() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """SQL conditions: a worker was seen within the lease time and has not shut down."""
    return Worker.left_at.is_(None), Worker.seen_at > now() - settings().lease_seconds


def missing_worker(session: Session, kind: Kind, needs: ResourceNeeds | None = None) -> str | None:
    """Which worker is missing, as text, if no running worker of the kind fits the needs; None otherwise."""
    found = session.scalars(select(Worker.about).where(Worker.kind == kind, *is_recent())).all()
    if not found:
        return f"no {kind} worker is running: start one with 'python -m worker --kind {kind}'"
    if needs is None or any_fits(map(Machine.of, found), needs):
        return None
    return f"waits for a worker with {needs.sentence}: no running worker has that"
