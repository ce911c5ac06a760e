"""Claims: taking the next due row of a kind, and renewing its lease."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session, aliased

from models.database import now, reading, transaction
from models.queue.wake_up import Kind
from models.records import Attempt, Inspection, Job, Worker
from models.records.columns import Leased
from models.scheduling.resources import Machine
from models.scheduling.turns import Line, Turn, due, serve, turns
from models.settings import settings
from models.status import InspectionStatus, JobStatus
from worker.clock import clock
from worker.ledger.changes import Taken, change_job, status_note

LINES: tuple[Line, ...] = (Job, Inspection)
Takes = Literal["everything", "uploads first", "uploads of idle keys", "checks"]
"""What one slot of a worker claims, see `_lines`."""
SLOTS: Mapping[Kind, tuple[Takes, ...]] = {
    "distill": ("everything",),
    "inspect": ("uploads first", "uploads of idle keys", "checks"),
}
"""The slots of a worker. A check never waits for an upload, and the uploads of one key never hold up those of another."""
UPLOADS = ("teacher", "dataset", "file")
CHECKS_TOGETHER = 16
"""Most checks of specs that one slot claims, and one engine runs, at once."""
LOCK = 0x7475726E
"""First key of the Postgres advisory locks that claims hold."""


@dataclass(frozen=True)
class Claim:
    """One attempt at one row, by one worker. `sent_at` is the time of this host's clock when the claim was sent."""

    record: Job | Inspection
    worker_id: str
    sent_at: float

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def attempt(self) -> int:
        return self.record.attempt


def claim(kind: Kind, worker_id: str, takes: Takes = "everything") -> Claim | None:
    """Claim the next row, see `claim_together`."""
    claimed = claim_together(kind, worker_id, takes, 1)
    return claimed[0] if claimed else None


def claim_together(
    kind: Kind, worker_id: str, takes: Takes = "everything", most: int = CHECKS_TOGETHER
) -> Sequence[Claim]:
    """Claim the next row (`models.scheduling.turns`) that this slot takes and whose needs this worker meets, and increment its
    attempt number. If it is a check, claim up to `most` checks in their order; one that was lost before is claimed alone.

    Claims of one kind run one after the other, so that each sees the ones before it: two concurrent claims could exceed
    a key's share or its limit of running jobs. A row that another transaction has locked is skipped.
    """
    sent_at = clock()
    line: Line = Job if kind == "distill" else Inspection
    with transaction() as session:
        _lock_claims(session, line)
        machine = Machine.of(session.scalar(select(Worker.about).where(Worker.id == worker_id)))
        taken = _take_next(session, line, machine, worker_id, _lines(takes), most if line is Inspection else 1)
        if taken:
            session.execute(update(Worker).where(Worker.id == worker_id).values(busy_with=taken[-1].id))
            session.flush()
            session.expunge_all()
    return [Claim(record, worker_id, sent_at) for record in taken]


def _take_next(
    session: Session,
    line: Line,
    machine: Machine,
    worker_id: str,
    lines: Sequence[tuple[ColumnElement[bool], ...]],
    most: int,
) -> Sequence[Job | Inspection]:
    for conditions in lines:
        order = turns(session, line, machine.fits, *conditions)
        # what is taken together is read before any of it is taken, since that changes what the order reads
        while some := list(islice(order, most)):
            for place, turn in enumerate(some, start=1):
                record = _take(session, line, turn.id, worker_id)
                if record is not None:
                    serve(session, line, turn.key_id)
                    # checks in the engine of one that was lost before might be lost with it
                    shares = isinstance(record, Inspection) and record.kind not in UPLOADS and record.losses == 0
                    return [record, *(_take_more(session, some[place:], worker_id) if shares else ())]
    return []


def _take_more(session: Session, order: Sequence[Turn], worker_id: str) -> Sequence[Inspection]:
    """Take the checks among these rows that never were lost, by as many statements as one."""
    alike = Inspection.kind.not_in(UPLOADS), Inspection.losses == 0
    mine = Inspection.id.in_([turn.id for turn in order])
    free = select(Inspection.id).where(mine, *due(Inspection), *alike).with_for_update(skip_locked=True)
    found = session.scalars(free).all() if order else ()
    if not found:
        return ()
    taken = Inspection.id.in_(found)
    session.execute(
        update(Inspection).where(taken).values(status=InspectionStatus.RUNNING, **_lease(Inspection, worker_id))
    )
    for key_id in dict.fromkeys(turn.key_id for turn in order if turn.id in found):
        serve(session, Inspection, key_id)
    records = {record.id: record for record in session.scalars(select(Inspection).where(taken))}
    return [records[turn.id] for turn in order if turn.id in records]


def _lines(takes: Takes) -> Sequence[tuple[ColumnElement[bool], ...]]:
    """Conditions of the rows that a slot takes: those of the first entry first, each in its order."""
    upload = Inspection.kind.in_(UPLOADS)
    other = aliased(Inspection)
    inspected = select(other.key_id).where(other.status == InspectionStatus.RUNNING, other.kind.in_(UPLOADS))
    return {
        "everything": ((),),
        "uploads first": ((upload,), (~upload,)),
        "uploads of idle keys": ((upload, Inspection.key_id.not_in(inspected)), (~upload,)),
        "checks": ((~upload,),),
    }[takes]


def _lock_claims(session: Session, line: Line) -> None:
    if session.get_bind().dialect.name == "postgresql":  # SQLite has only one writer at a time
        session.execute(select(func.pg_advisory_xact_lock(LOCK, LINES.index(line))))


def _take(session: Session, line: Line, identifier: str, worker_id: str) -> Job | Inspection | None:
    free = select(line.id).where(line.id == identifier, *due(line)).with_for_update(skip_locked=True)
    if session.scalar(free) is None:
        return None
    return (
        _take_job(session, identifier, worker_id) if line is Job else _take_inspection(session, identifier, worker_id)
    )


def _take_job(session: Session, job_id: str, worker_id: str) -> Job | None:
    number = session.scalars(select(Job.attempt).where(Job.id == job_id)).one() + 1
    changed = change_job(
        session,
        job_id,
        Job.status == JobStatus.QUEUED,
        notes=[status_note(JobStatus.RUNNING, f"attempt {number} has started", worker=worker_id, attempt=number)],
        status=JobStatus.RUNNING,
        reason=None,
        started_at=func.coalesce(Job.started_at, now()),
        **_lease(Job, worker_id),
    )
    if changed is None:
        return None
    session.add(Attempt(job_id=job_id, number=changed.attempt, worker_id=worker_id))
    session.flush()
    return session.get_one(Job, job_id)


def _take_inspection(session: Session, inspection_id: str, worker_id: str) -> Inspection:
    session.execute(
        update(Inspection)
        .where(Inspection.id == inspection_id, Inspection.status == InspectionStatus.QUEUED)
        .values(status=InspectionStatus.RUNNING, **_lease(Inspection, worker_id))
    )
    return session.get_one(Inspection, inspection_id)


def _lease(table: type[Leased], worker_id: str) -> dict[str, object]:
    return {
        "attempt": table.attempt + 1,
        "lease_owner": worker_id,
        "lease_expires_at": now() + settings().lease_seconds,
        "woken_at": None,
    }


def renew(held: Claim) -> bool:
    """Renew the lease; returns whether a cancel of the job was requested.

    Raises:
        Taken: this attempt does not hold the row any more.
    """
    table = type(held.record)
    with transaction() as session:
        renewed = session.execute(
            update(table)
            .where(table.id == held.id, table.attempt == held.attempt, table.status == "running")
            .values(lease_expires_at=now() + settings().lease_seconds)
            .execution_options(synchronize_session=False)
        )
        if renewed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result is a CursorResult
            raise Taken(held.id)
        if isinstance(held.record, Job):
            mine = Attempt.job_id == held.id, Attempt.number == held.attempt
            session.execute(update(Attempt).where(*mine).values(seconds=now() - Attempt.started_at))
        return _cancel_requested(session, held)


def look(held: Claim) -> bool:
    """Whether a cancel of the job was requested, without renewing the lease.

    Raises:
        Taken: this attempt does not hold the row any more.
    """
    table = type(held.record)
    with reading() as session:
        found = session.execute(
            select(table.id).where(table.id == held.id, table.attempt == held.attempt, table.status == "running")
        ).one_or_none()
        if found is None:
            raise Taken(held.id)
        return _cancel_requested(session, held)


def _cancel_requested(session: Session, held: Claim) -> bool:
    job_id = held.id if isinstance(held.record, Job) else held.record.subject_id
    return session.scalar(select(Job.cancel_requested_at).where(Job.id == job_id)) is not None
