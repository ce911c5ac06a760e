"""Whether somebody is there to do the work."""

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from models.database import now
from models.queue import Kind
from models.records import Worker
from models.settings import settings


def recent() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions that a worker was seen within its lease and has not left."""
    return Worker.left_at.is_(None), Worker.seen_at > now() - settings().lease_seconds


def absence(session: Session, kind: Kind) -> str | None:
    """A sentence if no worker of the kind is up."""
    if session.scalar(select(exists().where(Worker.kind == kind, *recent()))):
        return None
    return f"no {kind} worker is up: start one with 'python -m worker --kind {kind}'"
