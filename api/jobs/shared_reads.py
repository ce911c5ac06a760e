"""Reads of jobs that concurrent requests share.

One statement reads the versions of all jobs that were asked for, and only bodies of changed jobs are
read and encoded again. So many clients cost the database hardly more than one.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from api.http.batches import Batches
from api.http.conditional import matches
from api.http.errors import NotFound
from api.http.links import current_base, set_base
from api.http.row_watch import Token, token_of
from api.jobs.queue import Queue
from api.jobs.service import job_bodies
from api.jobs.tags import tag_of
from models.database import reading
from models.records import Job
from models.status import JobStatus

MOST_BYTES = 16 * 2**20
"""Most bytes of bodies that are kept."""
IDS_AT_ONCE = 500
COLUMNS = (Job.id, Job.key_id, Job.status, Job.version, Job.event_seq, Job.ready, Job.reason, Job.needs)


class Asked(NamedTuple):
    """What a request asks for. `known` is its `If-None-Match`, `base` the scheme and host of the links in the body."""

    key_id: str
    job_id: str
    known: str | None
    base: str


class Shown(NamedTuple):
    """A job as one key sees it: the token of its row, its entity tag, and its body as JSON; None if the client knows it."""

    token: Token
    final: bool
    tag: str
    body: bytes | None


class Bodies:
    """The newest bodies that were read, with their tags, at most `MOST_BYTES` in all. Used by one thread at a time."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], tuple[str, bytes]] = OrderedDict()

    def get(self, job_id: str, base: str, tag: str) -> bytes | None:
        """The body of a job, if it is the one with this tag."""
        known, body = self._kept.get((job_id, base), ("", b""))
        if known != tag:
            return None
        self._kept.move_to_end((job_id, base))
        return body

    def keep(self, job_id: str, base: str, tag: str, body: bytes) -> None:
        """Keep a body instead of an earlier one; drop those that were not used for the longest time."""
        _, earlier = self._kept.pop((job_id, base), ("", b""))
        self._kept[job_id, base] = tag, body
        self._bytes += len(body) - len(earlier)
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1][1])


class SharedReads:
    """The reads of this process."""

    def __init__(self) -> None:
        self._batches = Batches(self._read, IDS_AT_ONCE)
        self._bodies = Bodies()

    async def read(self, key_id: str, job_id: str, known: str | None) -> Shown:
        """A job, read after this call; without its body if `known` (an `If-None-Match`) contains its tag.

        Raises:
            NotFound: the job does not exist or belongs to another key.
        """
        return await self._batches.ask(Asked(key_id, job_id, known, current_base()))

    def _read(self, asked: Sequence[Asked]) -> list[Shown | Exception]:
        found: dict[Asked, Shown] = {}
        with reading() as session:
            rows = _rows(session, {one.job_id for one in asked if "\0" not in one.job_id})  # Postgres rejects NUL
            queue = Queue(session)
            changed: dict[str, list[Asked]] = defaultdict(list)
            for one in asked:
                row = rows.get(one.job_id)
                if row is None or row.key_id != one.key_id:
                    continue
                tag = tag_of(row.id, row.version, queue.reason(row), queue.position(row))
                known = matches(one.known, tag)
                body = None if known else self._bodies.get(row.id, one.base, tag)
                if known or body is not None:
                    found[one] = Shown((row.version, row.event_seq), JobStatus(row.status).final, tag, body)
                else:
                    changed[one.base].append(one)
            for base, ones in changed.items():
                set_base(base)
                shown = self._encoded(session, queue, {one.job_id for one in ones}, base)
                found |= {one: shown[one.job_id] for one in ones if one.job_id in shown}
        return [found.get(one) or NotFound(f"The job {one.job_id} does not exist.") for one in asked]

    def _encoded(self, session: Session, queue: Queue, ids: set[str], base: str) -> dict[str, Shown]:
        """Jobs with their new bodies; without those that have just been deleted."""
        jobs = session.scalars(select(Job).where(Job.id.in_(ids), Job.deleted_at.is_(None))).all()
        found = {}
        for job, body in zip(jobs, job_bodies(session, jobs, queue), strict=True):
            tag, encoded = (
                tag_of(job.id, job.version, body.reason, body.queue_position),
                body.model_dump_json().encode(),
            )
            self._bodies.keep(job.id, base, tag, encoded)
            found[job.id] = Shown(token_of(job), body.status.final, tag, encoded)
        return found


def _rows(session: Session, ids: set[str]) -> dict[str, Row[*tuple[Any, ...]]]:
    query = select(*COLUMNS).where(Job.id.in_(ids), Job.deleted_at.is_(None))
    return {row.id: row for row in session.execute(query)}
