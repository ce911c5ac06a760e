"""Teachers, datasets and files in the database: a record first, then its bytes by PUT, then an inspection."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import structlog
from pydantic import Field
from sqlalchemy import ColumnElement, String, cast, or_, select, update
from sqlalchemy.orm import Session

from api.access.quota import Room, room_for_bytes
from api.health.workers import missing_worker
from api.http import digests
from api.http.bodies import RequestBody, ResponseBody, without_default
from api.http.errors import ApiError, Conflict, NoBytes, NotFound
from api.http.links import link
from api.http.observe import current_request_id
from api.http.paging import Page, Window
from api.http.problem_documents import PointedError
from api.uploads import ranges
from models.database import now, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Dataset, File, Inspection, Job, Teacher
from models.records.columns import new_id
from models.scheduling.key_usage import lock
from models.spec.job_spec import Labels, Name
from models.status import JobStatus, UploadStatus
from models.storage import keys
from models.storage.chunks import Stored
from models.storage.errors import StorageError, TooLarge
from models.storage.opening import storage

UNFINISHED = tuple(status for status in JobStatus if not status.final)
OPEN = (UploadStatus.WAITING, UploadStatus.REJECTED)
"""States in which an upload accepts bytes."""


class Rejection(ResponseBody):
    """Why an upload was rejected, in the form of a problem document."""

    type: str = Field("urn:distillery:problem:rejected", description="URI of the problem type.")
    title: str = "The upload was rejected"
    status: int = 422
    code: str = Field("rejected", description="Error code, see docs/errors.md.")
    detail: str = Field(description="What is wrong with the bytes.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[PointedError] = Field(default_factory=list)

    @classmethod
    def of(cls, problem: dict[str, Any]) -> "Rejection":
        """From the problem that the inspection recorded."""
        return cls(
            code=problem.get("code") or "rejected",
            detail=problem.get("message") or problem.get("detail") or "The inspection rejected the bytes.",
            hint=problem.get("hint") or None,
            errors=problem.get("errors") or [],
        )


class UploadBody(ResponseBody):
    """The fields that all uploads share."""

    id: str
    name: str
    labels: dict[str, str] = Field(description="Labels chosen by the user; lists can be filtered by them.")
    status: UploadStatus = Field(description="`waiting` for bytes, `inspecting`, then `ready` or `rejected`.")
    reason: str | None = Field(None, description="What the upload waits for; null once it is ready or rejected.")
    size: int | None = Field(description="Size of the bytes as sent.")
    received: int = Field(0, description="Bytes received so far, if they are sent in several ranges (`Content-Range`).")
    sha256: str | None = Field(description="SHA-256 of the bytes as sent, in hex.")
    findings: dict[str, Any] | None = Field(description="Findings of the inspection, once `ready`.")
    problem: Rejection | None = Field(description="Why the inspection rejected the bytes, once `rejected`.")
    created_at: datetime
    updated_at: datetime
    upload: str = Field(description="URL to PUT the raw bytes to: `curl -T FILE URL`.")
    links: dict[str, str]


class UploadEdit(RequestBody):
    """Changes to an upload. Fields that are left out do not change."""

    name: Name = Field(default="", json_schema_extra=without_default, description="New name.")
    labels: Labels = Field(
        default={}, json_schema_extra=without_default, description="New labels; they replace all old ones."
    )


log = structlog.get_logger("api")
R = TypeVar("R", Teacher, Dataset, File)
B = TypeVar("B", bound=UploadBody)


@dataclass(frozen=True)
class Uploads(Generic[R, B]):
    """The operations on one kind of upload. Every query is restricted to the rows of one key."""

    record: type[R]
    body: type[B]
    kind: str
    prefix: str
    path: str

    def create(self, key_id: str, values: dict[str, Any]) -> B:
        """Create a record that waits for its bytes, or, with a `source`, for the inspection of them."""
        referred = values.get("source") is not None
        status = UploadStatus.INSPECTING if referred else UploadStatus.WAITING
        record = self.record(id=new_id(self.prefix), key_id=key_id, status=status, **values)
        with transaction() as session:
            session.add(record)
            if referred:
                session.add(self.inspection_of(record.id, key_id))
            session.flush()
            body = self.to_body(session, record)
        if referred:
            wake_up("inspect")
        return body

    def to_body(self, session: Session, record: R) -> B:
        """The response body of a row."""
        address = link(f"{self.path}/{record.id}")
        values = {column.key: getattr(record, column.key) for column in self.record.__table__.columns}
        values["problem"] = Rejection.of(record.problem) if record.problem else None
        values["reason"] = _reason(session, record)
        values["received"] = ranges.received(record.upload_parts)
        return self.body.model_validate(values | {"upload": f"{address}/content", "links": {"self": address}})

    def find(self, session: Session, key_id: str, identifier: str, lock: bool = False) -> R:
        """The row of an upload.

        Raises:
            NotFound: the upload does not exist or belongs to another key.
        """
        query = select(self.record).where(*self._of_key(key_id), self.record.id == identifier)
        record = session.scalar(query.with_for_update() if lock else query)
        if record is None:
            raise NotFound(f"The {self.kind} {identifier} does not exist.")
        return record

    def get(self, key_id: str, identifier: str) -> tuple[R, B]:
        """An upload's row and its response body."""
        with reading() as session:
            record = self.find(session, key_id, identifier)
            return record, self.to_body(session, record)

    def page(self, key_id: str, window: Window, status: UploadStatus | None) -> Page[B]:
        """One page of the key's uploads."""
        query = select(self.record).where(*self._of_key(key_id))
        if status is not None:
            query = query.where(self.record.status == status)
        with reading() as session:
            query = query.where(*window.labelled(session, self.record.labels), *window.within(self.record.created_at))
            return window.page(session, query, self.record.id, lambda record: self.to_body(session, record))

    def edit(self, key_id: str, identifier: str, edit: UploadEdit) -> B:
        """Change the name or the labels."""
        with transaction() as session:
            record = self.find(session, key_id, identifier, lock=True)
            for name, value in edit.model_dump(exclude_unset=True).items():
                setattr(record, name, value)
            record.updated_at = session.scalars(select(now())).one()
            session.flush()
            return self.to_body(session, record)

    def delete(self, key_id: str, identifier: str) -> None:
        """Hide the row and delete its bytes.

        Raises:
            Conflict: an unfinished job uses the upload.
        """
        with transaction() as session:
            record = self.find(session, key_id, identifier, lock=True)
            user = session.scalar(select(Job.id).where(_uses(record.id, key_id)).limit(1))
            if user is not None:
                raise Conflict(
                    f"The unfinished job {user} uses this {self.kind}. Cancel the job or wait until it ends."
                )
            record.deleted_at = session.scalar(select(now()))
            stored = [key for key in (record.upload_key, record.blob_key) if key]
            stored += [keys.samples(record.blob_key)] if record.blob_key and self.record is Dataset else []
            stored += [part["key"] for part in record.upload_parts or []]
            stored += [keys.canonical_part(record.id, part["sha256"]) for part in record.blob_parts or []]
        try:
            for key in stored:
                storage().delete(key)
        except StorageError as error:
            log.warning("blobs_left_behind", upload=identifier, error=str(error))

    async def receive(
        self, key_id: str, identifier: str, chunks: AsyncIterator[bytes], length: int | None, expected: set[str]
    ) -> None:
        """Stream bytes to storage, record them, and wake the inspect workers. If it raises, no bytes are kept.

        Raises:
            Conflict: the upload already has its bytes.
            TooLarge, QuotaExceeded: there are too many bytes; raised before the first one if `length` is known.
            NoBytes, DigestMismatch: the body is empty, or its SHA-256 is not one of `expected`.
        """
        room = await asyncio.to_thread(self._room, key_id, identifier, length)
        # every PUT has its own storage key, so that two concurrent ones cannot overwrite each other's bytes
        key = keys.upload(identifier, secrets.token_hex(8))
        try:
            stored = await storage().put_stream(key, chunks, room.size)
        except TooLarge as error:
            raise room.exceeded() from error
        try:
            if stored.size == 0:
                raise NoBytes("The body is empty. Send the raw bytes: curl -T FILE URL.")
            digests.require(expected, stored.sha256)
            await asyncio.to_thread(self._accept, key_id, identifier, key, stored)
        except ApiError:
            await asyncio.to_thread(storage().delete, key)
            raise
        await asyncio.to_thread(wake_up, "inspect")

    def _room(self, key_id: str, identifier: str, length: int | None) -> Room:
        with reading() as session:
            self.require_open(self.find(session, key_id, identifier))
            return room_for_bytes(session, key_id, length)

    def _accept(self, key_id: str, identifier: str, key: str, stored: Stored) -> None:
        with transaction() as session:
            lock(session, key_id)
            room_for_bytes(session, key_id, stored.size)
            changed = session.execute(
                update(self.record)
                .where(*self._of_key(key_id), self.record.id == identifier, self.record.status.in_(OPEN))
                .values(
                    status=UploadStatus.INSPECTING,
                    upload_key=key,
                    upload_parts=None,
                    size=stored.size,
                    sha256=stored.sha256,
                    findings=None,
                    problem=None,
                    updated_at=now(),
                )
                .returning(self.record.id)
            ).scalar()
            if changed is None:
                self.require_open(self.find(session, key_id, identifier))
            session.add(self.inspection_of(identifier, key_id))

    def inspection_of(self, identifier: str, key_id: str) -> Inspection:
        """A new inspection of an upload."""
        request = {"request_id": current_request_id()}
        return Inspection(**request, id=new_id("ins"), kind=self.kind, subject_id=identifier, key_id=key_id)

    def require_open(self, record: R) -> None:
        if record.status not in OPEN:
            raise Conflict(
                f"This {self.kind} already has its bytes and is {record.status}. Create a new one to send others."
            )

    def _of_key(self, key_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return self.record.key_id == key_id, self.record.deleted_at.is_(None)


def why_unusable(record: Teacher | Dataset | File) -> str | None:
    """Why an upload cannot be an input of a job or of another upload, as text; None if it is or may become ready."""
    rejected = record.status == UploadStatus.REJECTED
    return f"the inspection rejected {record.id}: upload other bytes" if rejected else None


def _reason(session: Session, record: Teacher | Dataset | File) -> str | None:
    if record.status == UploadStatus.WAITING and record.upload_parts:
        return f"waits for the bytes from {ranges.received(record.upload_parts)} to {record.size}"
    if record.status == UploadStatus.WAITING:
        return "waits for its bytes: PUT them to the URL in 'upload'"
    if record.status == UploadStatus.INSPECTING:
        waits = _awaited_dataset(session, record) or "waits for its inspection to end"
        return "; ".join(filter(None, (waits, missing_worker(session, "inspect"))))
    return None


def _awaited_dataset(session: Session, record: Teacher | Dataset | File) -> str | None:
    if not isinstance(record, Teacher) or record.dataset is None:
        return None
    dataset = session.get(Dataset, record.dataset)
    if dataset is None or dataset.status not in (UploadStatus.WAITING, UploadStatus.INSPECTING):
        return None
    return f"waits for {dataset.id}, which is {dataset.status}"


def _uses(identifier: str, key_id: str) -> ColumnElement[bool]:
    # an id can be anywhere in a spec (ensembles, weights, statistics); it is long enough for a text search to be exact
    named = cast(Job.resolved, String).contains(identifier)
    columns = or_(Job.teacher_id == identifier, Job.dataset_id == identifier, Job.evaluation_id == identifier)
    return (Job.key_id == key_id) & Job.status.in_(UNFINISHED) & Job.deleted_at.is_(None) & (columns | named)
