"""Whether somebody is there to do the work."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from models.database import now
from models.queue.wake_up import Kind
from models.records import Worker
from models.scheduling.resources import Machine, ResourceNeeds, any_fits
from models.settings import settings


def recent() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions that a worker was seen within its lease and has not left."""
    return Worker.left_at.is_(None), Worker.seen_at > now() - settings().lease_seconds


def absence(session: Session, kind: Kind, needs: ResourceNeeds | None = None) -> str | None:
    """A sentence if no worker of the kind is up, or none that could take work with such needs."""
    found = session.scalars(select(Worker.about).where(Worker.kind == kind, *recent())).all()
    if not found:
        return f"no {kind} worker is up: start one with 'python -m worker --kind {kind}'"
    if needs is None or any_fits(map(Machine.of, found), needs):
        return None
    return f"waits for a worker with {needs.sentence}: none that is up has that"
