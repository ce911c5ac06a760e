"""What event streams read: the changes of all jobs that are followed, by one statement."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi.sse import format_sse_event
from sqlalchemy import Integer, Select, String, and_, column, or_, select, values

from api.http.links import set_base
from api.jobs.newest_metrics import newest_of
from api.jobs.outputs import event_body
from api.jobs.schemas import EventBody, MetricValue
from models.database import reading
from models.records import Event, Job
from models.status import JobStatus

BATCH = 200
"""Most events of a job in one read."""
JOBS_AT_ONCE = 500
NEVER = 2**30
"""Number above those of all events: the first read of a job asks for none."""


class Message(NamedTuple):
    """An encoded server-sent event; `seq` is its number."""

    seq: int
    text: bytes


class Followed(NamedTuple):
    """A job as a reader knows it: `version` of its row, and `seq`, the number of the newest event (None before the first read).

    `base` is the scheme and host of the links in its events.
    """

    job_id: str
    base: str
    version: int = -1
    seq: int | None = None


class Update(NamedTuple):
    """What a reader does not know yet; `version` is None if the job was deleted."""

    version: int | None
    final: bool
    messages: list[Message]
    newest_seq: int
    metrics: dict[str, MetricValue]


def read_updates(followed: Sequence[Followed]) -> list[Update | None]:
    """What has changed in each job since its reader read it, None if nothing has: at most `BATCH` events above `seq`, and the
    newest metrics."""
    found: list[Update | None] = []
    with reading() as session:
        for start in range(0, len(followed), JOBS_AT_ONCE):
            some = followed[start : start + JOBS_AT_ONCE]
            rows: list[list[Any]] = [[] for _ in some]
            for row in session.execute(_changes(some)):
                rows[row.at].append(row)
            found += [_update(one, mine) if mine else None for one, mine in zip(some, rows, strict=True)]
    return found


def _changes(followed: Sequence[Followed]) -> Select[Any]:
    """A row for every new event of a job that has changed, at least one. The first is repeated for every metric."""
    columns = column("at", Integer), column("job_id", String), column("version", Integer), column("seq", Integer)
    known = [(at, one.job_id, one.version, NEVER if one.seq is None else one.seq) for at, one in enumerate(followed)]
    asked = values(*columns, name="asked").data(known).cte("asked")
    there = Job.id == asked.c.job_id, Job.deleted_at.is_(None)
    changed = or_(Job.version != asked.c.version, Job.event_seq > asked.c.seq)
    newest = newest_of(select(Job.id).join(asked, and_(*there)).where(changed)).subquery("newest")
    following = Event.job_id == Job.id, Event.seq > asked.c.seq, Event.seq <= asked.c.seq + BATCH
    first = or_(Event.seq.is_(None), Event.seq == asked.c.seq + 1)
    return (
        select(asked.c.at, Job.version, Job.status, Job.event_seq, Event, newest.c.name, newest.c.step, newest.c.value)
        .select_from(asked)
        .outerjoin(Job, and_(*there))
        .outerjoin(Event, and_(*following))
        .outerjoin(newest, and_(newest.c.job_id == Job.id, first))
        .where(or_(Job.id.is_(None), changed))
        .order_by(asked.c.at, Event.seq)
    )


def _update(known: Followed, rows: Sequence[Any]) -> Update:
    job = rows[0]
    if job.version is None:
        return Update(None, True, [], known.seq or 0, {})
    set_base(known.base)
    events = {row.Event.seq: row.Event for row in rows if row.Event is not None}
    messages = [message_of(event_body(event)) for event in events.values()]
    newest = messages[-1].seq if messages else job.event_seq if known.seq is None else known.seq
    named = sorted((row for row in rows if row.name is not None), key=lambda row: row.name)
    metrics = {row.name: MetricValue(step=row.step, value=row.value) for row in named}
    return Update(job.version, JobStatus(job.status).final, messages, newest, metrics)


def message_of(event: EventBody) -> Message:
    """An event, encoded as a server-sent event."""
    text = format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
    return Message(event.seq, text)
