"""Outputs of a job: events, metrics, previews, artifacts and logs."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import and_, or_, select

from api.http.downloads import Blob, read_small
from api.http.errors import BadCursor, Conflict, Gone, NotFound
from api.http.links import link
from api.http.paging import BAD_CURSOR, Page, decode_text, encode
from api.jobs.schemas import ArtifactBody, BlobBody, EventBody, MetricBody, PreviewBody
from api.jobs.service import find
from models.database import reading
from models.records import Artifact, Attempt, Event, Job, Metric, Preview
from models.status import JobStatus
from models.storage.opening import storage

T = TypeVar("T", bound=BlobBody)
INLINE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
"""Media types of previews that are sent with `Content-Disposition: inline`."""


def events(key_id: str, job_id: str, after: int, limit: int, cursor: str | None = None) -> Page[EventBody]:
    """Events with a number above `after`, oldest first; a cursor replaces `after`."""
    if cursor is not None:
        after = _parse_event_cursor(cursor)
    with reading() as session:
        find(session, key_id, job_id)
        query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq)
        rows = session.scalars(query.limit(limit + 1)).all()
    shown = [event_body(row) for row in rows[:limit]]
    return Page(data=shown, next_cursor=encode(str(shown[-1].seq)) if len(rows) > limit else None)


def event_body(row: Event) -> EventBody:
    """The response body of an event."""
    values = {column.key: getattr(row, column.key) for column in Event.__table__.columns}
    name = (row.data or {}).get("name") if row.type in ("preview", "artifact") else None
    links = {"self": link(f"/jobs/{row.job_id}/{row.type}s/{name}")} if name else {}
    return EventBody.model_validate(values | {"links": links})


def newest_events(key_id: str, job_id: str, count: int) -> list[EventBody]:
    """The newest events of a job, oldest first."""
    with reading() as session:
        find(session, key_id, job_id)
        query = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc()).limit(count)
        return [event_body(row) for row in session.scalars(query)][::-1]


def has_no_more(key_id: str, job_id: str, after: int) -> bool:
    """Whether a job has ended and has no event with a number above `after`."""
    with reading() as session:
        job = find(session, key_id, job_id)
        return JobStatus(job.status).final and after >= job.event_seq


def metrics(
    key_id: str, job_id: str, names: Sequence[str], after: int | None, limit: int, cursor: str | None
) -> Page[MetricBody]:
    """Values of metrics, ordered by name and step."""
    query = select(Metric).where(Metric.job_id == job_id)
    if names:
        query = query.where(Metric.name.in_(names))
    if after is not None:
        query = query.where(Metric.step > after)
    if cursor is not None:
        step, name = _parse_metric_cursor(cursor)
        query = query.where(or_(Metric.name > name, and_(Metric.name == name, Metric.step > step)))
    with reading() as session:
        find(session, key_id, job_id)
        rows = session.scalars(query.order_by(Metric.name, Metric.step).limit(limit + 1)).all()
    shown = [MetricBody.model_validate(row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(data=shown, next_cursor=encode(f"{shown[-1].step}:{shown[-1].name}") if more else None)


def artifacts(key_id: str, job_id: str) -> Page[ArtifactBody]:
    """The artifacts of a job, ordered by name; none before it has succeeded."""
    with reading() as session:
        find(session, key_id, job_id)
        rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()
    return Page(data=[_body(row, ArtifactBody, "artifacts") for row in rows], next_cursor=None)


def previews(key_id: str, job_id: str) -> Page[PreviewBody]:
    """The previews of a job, newest step first."""
    with reading() as session:
        find(session, key_id, job_id)
        order = Preview.step.desc(), Preview.name
        rows = session.scalars(select(Preview).where(Preview.job_id == job_id).order_by(*order)).all()
    return Page(data=[_body(row, PreviewBody, "previews") for row in rows], next_cursor=None)


def blob(record: type[Artifact] | type[Preview], key_id: str, job_id: str, name: str) -> Blob:
    """The artifact or preview of a name.

    Raises:
        NotFound: the job has none of this name.
        Gone: the job's artifacts have expired and were removed.
    """
    with reading() as session:
        job = find(session, key_id, job_id)
        row = session.scalar(select(record).where(record.job_id == job_id, record.name == name))
    if row is None and record is Artifact:
        _require_kept(job)
    if not isinstance(row, Artifact | Preview):
        raise NotFound(f"The job {job_id} has no {record.__name__.lower()} {name}.")
    return _blob(row)


def small_artifact(key_id: str, job_id: str, name: str, most_bytes: int) -> bytes | None:
    """The bytes of an artifact; None if there are more than `most_bytes`.

    Raises:
        NotFound, Gone: the job has no such artifact, or its bytes are missing or damaged.
    """
    return small_blob(blob(Artifact, key_id, job_id, name), most_bytes)


def small_blob(found: Blob, most_bytes: int) -> bytes | None:
    """The bytes of a stored file; None if there are more than `most_bytes`.

    Raises:
        Gone: its bytes are missing or damaged.
    """
    return read_small(found) if found.size <= most_bytes else None


def attempt_log(key_id: str, job_id: str, number: int) -> Blob:
    """The log of an attempt: the standard error of its engine.

    Raises:
        NotFound: the attempt does not exist or has not ended, or it has no log.
    """
    with reading() as session:
        find(session, key_id, job_id)
        row = session.get(Attempt, (job_id, number))
    if row is None:
        raise NotFound(f"The job {job_id} has no attempt {number}.")
    size = storage().size(row.log_key) if row.log_key else None
    if row.log_key is None or size is None:
        if row.ended_at is None:
            raise NotFound(f"Attempt {number} is running. Its log is available once it has ended.")
        raise NotFound(f"Attempt {number} has no log: it wrote none, or the log has expired.")
    return Blob(f"{job_id}-{number}.log", row.log_key, "text/plain; charset=utf-8", size, None, inline=True)


def all_artifacts(key_id: str, job_id: str) -> tuple[Job, list[Blob]]:
    """The job and all its artifacts.

    Raises:
        Conflict: the job has no artifacts.
        Gone: the job's artifacts have expired and were removed.
    """
    with reading() as session:
        job = find(session, key_id, job_id)
        rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()
    if not rows:
        _require_kept(job)
        raise Conflict(f"The job {job_id} has no artifacts: its status is {job.status}.")
    return job, [_blob(row) for row in rows]


def _require_kept(job: Job) -> None:
    if job.artifacts_removed_at is not None:
        removed = datetime.fromtimestamp(job.artifacts_removed_at, UTC)
        raise Gone(f"The artifacts expired and were removed on {removed:%Y-%m-%d}. Retry the job to make them again.")


def _blob(row: Artifact | Preview) -> Blob:
    inline = isinstance(row, Preview) and row.content_type in INLINE_TYPES
    return Blob(row.name, row.key, row.content_type, row.size, row.sha256, inline)


def _body(row: Artifact | Preview, body: type[T], collection: str) -> T:
    values = {column.key: getattr(row, column.key) for column in type(row).__table__.columns}
    return body.model_validate(values | {"links": {"self": link(f"/jobs/{row.job_id}/{collection}/{row.name}")}})


def _parse_event_cursor(cursor: str) -> int:
    text = decode_text(cursor)
    if not re.fullmatch(r"\d{1,9}", text):
        raise BadCursor(BAD_CURSOR)
    return int(text)


def _parse_metric_cursor(cursor: str) -> tuple[int, str]:
    step, colon, name = decode_text(cursor).partition(":")
    if not colon or not re.fullmatch(r"\d{1,9}", step) or "\0" in name:
        raise BadCursor(BAD_CURSOR)
    return int(step), name
