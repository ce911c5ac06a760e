"""The rows of workers: when each was last seen, and what it is working on."""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, exists, func, or_, select, update

from models.database import now, reading, transaction
from models.queue.wake_up import KINDS, Kind
from models.records import Inspection, Job, Worker
from models.records.columns import new_id
from models.scheduling.resources import Machine
from models.settings import settings
from worker import devices
from worker.ledger import time_of_day

UNSEEN_SWEEPS = 4
"""Number of missed sweeps after which a worker counts as gone."""
LEASED: tuple[type[Job] | type[Inspection], ...] = (Job, Inspection)
FORGOTTEN_SECONDS = 7 * 24 * 3600.0


def register(
    kind: Kind,
    sandbox: Mapping[str, object] | None = None,
    takes: str = "everything",
    more: Mapping[str, object] | None = None,
) -> str:
    """Insert the row of a worker, or of one of its slots, with a description of its engines' sandbox and `more`; returns its
    id."""
    about: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "sandbox": dict(sandbox or {}),
        "takes": takes,
        **(more or {}),
    }
    if kind == "distill":
        about |= devices.machine().about()
    worker = Worker(id=new_id("wrk"), kind=kind, host=host(), process=os.getpid(), about=about)
    with transaction() as session:
        session.add(worker)
    return worker.id


def host() -> str:
    """This machine's name."""
    return socket.gethostname()[:255]


def seen(worker_ids: Sequence[str], free_bytes: int) -> None:
    """Record that the slots of a worker are running, and how much space is free for the folders of their attempts."""
    space = {"free_bytes": free_bytes, "least_free_bytes": settings().free_bytes}
    space["clock_seconds_off"] = round(time_of_day.seconds_off())
    with transaction() as session:
        for row in session.scalars(select(Worker).where(Worker.id.in_(worker_ids)).with_for_update()).all():
            values = {"seen_at": now(), "left_at": None, "about": (row.about or {}) | space}
            session.execute(update(Worker).where(Worker.id == row.id).values(**values))


def idle(worker_id: str) -> None:
    """Record that a worker is idle."""
    with transaction() as session:
        session.execute(update(Worker).where(Worker.id == worker_id).values(busy_with=None))


def leave(worker_ids: Sequence[str]) -> None:
    """Record that a worker has stopped."""
    with transaction() as session:
        session.execute(update(Worker).where(Worker.id.in_(worker_ids)).values(left_at=now(), busy_with=None))


def alive_here(kind: Kind) -> bool:
    """Whether a worker of the kind on this machine is running."""
    alive = Worker.left_at.is_(None), Worker.seen_at > now() - _unseen_seconds()
    with reading() as session:
        return bool(session.scalar(select(exists().where(Worker.kind == kind, Worker.host == host(), *alive))))


def idle_workers() -> dict[Kind, list[Machine]]:
    """The machines of the idle workers of each kind.

    If a worker's report that it is idle was lost, it counts as idle as soon as it holds no lease on what it was busy
    with.
    """
    holds = or_(*(exists().where(table.id == Worker.busy_with, table.lease_owner == Worker.id) for table in LEASED))
    waiting = Worker.left_at.is_(None), ~holds, Worker.seen_at > now() - _unseen_seconds()
    with reading() as session:
        found = session.execute(select(Worker.kind, Worker.about).where(*waiting)).all()
    return {kind: [Machine.of(about) for own, about in found if own == kind] for kind in KINDS}


def dismiss_unseen() -> None:
    """Mark workers that crashed as stopped, and delete the rows of those that stopped more than a week ago."""
    with transaction() as session:
        # one that was suspended may have been marked, and then have claimed work before it crashed
        marked = or_(Worker.left_at.is_(None), Worker.busy_with.is_not(None))
        unseen = marked, Worker.seen_at < now() - 4 * _unseen_seconds()
        values = {"left_at": func.coalesce(Worker.left_at, now()), "busy_with": None}
        session.execute(update(Worker).where(*unseen).values(**values))
        session.execute(delete(Worker).where(Worker.left_at < now() - FORGOTTEN_SECONDS))


def _unseen_seconds() -> float:
    return UNSEEN_SWEEPS * settings().sweep_seconds
