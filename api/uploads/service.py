"""Teachers, datasets and files: a record first, then its bytes by PUT, then the inspection's verdict."""

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

from api.access.quota import Room, lock, room_for_bytes
from api.health.workers import absence
from api.http import digests
from api.http.bodies import Asked, Shown
from api.http.errors import ApiError, Conflict, NoBytes, NotFound
from api.http.links import link
from api.http.observe import current_request_id
from api.http.paging import Page, Window
from api.http.problem_documents import Pointed
from models.database import now, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Dataset, File, Inspection, Job, Teacher
from models.records.columns import new_id
from models.spec.job_spec import Labels, Name
from models.status import JobStatus, UploadStatus
from models.storage import keys
from models.storage.chunks import Stored
from models.storage.errors import StorageError, TooLarge
from models.storage.opening import storage

UNFINISHED = tuple(status for status in JobStatus if not status.final)
OPEN = (UploadStatus.WAITING, UploadStatus.REJECTED)
"""States in which an upload takes bytes."""


class Rejection(Shown):
    """Why an upload was rejected: a problem document, as a PUT of these bytes would be answered if it could be at once."""

    type: str = Field("urn:distillery:problem:rejected", description="A URI that names this kind of problem.")
    title: str = "The upload was rejected"
    status: int = 422
    code: str = Field("rejected", description="A word that names the kind of problem.")
    detail: str = Field(description="What is wrong with the bytes.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[Pointed] = Field(default_factory=list)

    @classmethod
    def of(cls, problem: dict[str, Any]) -> "Rejection":
        """From what the inspection recorded."""
        return cls(
            code=problem.get("code") or "rejected",
            detail=problem.get("message") or problem.get("detail") or "The bytes were refused.",
            hint=problem.get("hint") or None,
            errors=problem.get("errors") or [],
        )


class UploadBody(Shown):
    """What every upload shows."""

    id: str
    name: str
    labels: dict[str, str] = Field(description="Your own names and values; lists filter by them.")
    status: UploadStatus = Field(description="`waiting` for bytes, `inspecting`, then `ready` or `rejected`.")
    reason: str | None = Field(None, description="What it waits for; null once it is ready or rejected.")
    size: int | None = Field(description="Bytes as sent.")
    sha256: str | None = Field(description="SHA-256 of the bytes as sent, in hex.")
    findings: dict[str, Any] | None = Field(description="What the inspection found, once `ready`.")
    problem: Rejection | None = Field(description="What is wrong with the bytes, once `rejected`.")
    created_at: datetime
    updated_at: datetime
    upload: str = Field(description="PUT the raw bytes here: `curl -T FILE LINK`.")
    links: dict[str, str]


class UploadEdit(Asked):
    """What of an upload may be changed; what is left out stays."""

    name: Name = Field(default="", description="A new name.")
    labels: Labels = Field(default={}, description="All labels; those that are not named are removed.")


log = structlog.get_logger("api")
R = TypeVar("R", Teacher, Dataset, File)
B = TypeVar("B", bound=UploadBody)


@dataclass(frozen=True)
class Uploads(Generic[R, B]):
    """The life of one kind of upload; every query is of one key's rows."""

    record: type[R]
    body: type[B]
    kind: str
    prefix: str
    path: str

    def create(self, key_id: str, values: dict[str, Any]) -> B:
        """A record that waits for its bytes."""
        record = self.record(id=new_id(self.prefix), key_id=key_id, status=UploadStatus.WAITING, **values)
        with transaction() as session:
            session.add(record)
            session.flush()
            return self.shown(session, record)

    def shown(self, session: Session, record: R) -> B:
        """A row as an answer."""
        address = link(f"{self.path}/{record.id}")
        values = {column.key: getattr(record, column.key) for column in self.record.__table__.columns}
        values["problem"] = Rejection.of(record.problem) if record.problem else None
        values["reason"] = _reason(session, record)
        return self.body.model_validate(values | {"upload": f"{address}/content", "links": {"self": address}})

    def find(self, session: Session, key_id: str, identifier: str, lock: bool = False) -> R:
        """The row of an id.

        Raises:
            NotFound: there is none that belongs to this key.
        """
        query = select(self.record).where(*self._mine(key_id), self.record.id == _plain(identifier))
        record = session.scalar(query.with_for_update() if lock else query)
        if record is None:
            raise NotFound(f"There is no {self.kind} {identifier}.")
        return record

    def get(self, key_id: str, identifier: str) -> tuple[R, B]:
        """The row and how it is shown."""
        with reading() as session:
            record = self.find(session, key_id, identifier)
            return record, self.shown(session, record)

    def page(self, key_id: str, window: Window, status: UploadStatus | None) -> Page[B]:
        """Some of the key's uploads."""
        query = select(self.record).where(*self._mine(key_id))
        if status is not None:
            query = query.where(self.record.status == status)
        with reading() as session:
            query = query.where(*window.labelled(session, self.record.labels), *window.within(self.record.created_at))
            return window.page(session, query, self.record.id, lambda record: self.shown(session, record))

    def edit(self, key_id: str, identifier: str, edit: UploadEdit) -> B:
        """Change name or labels."""
        with transaction() as session:
            record = self.find(session, key_id, identifier, lock=True)
            for name, value in edit.model_dump(exclude_unset=True).items():
                setattr(record, name, value)
            record.updated_at = session.scalars(select(now())).one()
            session.flush()
            return self.shown(session, record)

    def delete(self, key_id: str, identifier: str) -> None:
        """Hide the row and remove its bytes.

        Raises:
            Conflict: a job that is not finished uses it.
        """
        with transaction() as session:
            record = self.find(session, key_id, identifier, lock=True)
            user = session.scalar(select(Job.id).where(_uses(record.id, key_id)).limit(1))
            if user is not None:
                raise Conflict(f"The job {user} uses this {self.kind}: cancel it first, or wait for its end.")
            record.deleted_at = session.scalar(select(now()))
            keys = [key for key in (record.upload_key, record.blob_key) if key]
        try:
            for key in keys:
                storage().delete(key)
        except StorageError as error:
            log.warning("blobs_left_behind", upload=identifier, error=str(error))

    async def receive(
        self, key_id: str, identifier: str, chunks: AsyncIterator[bytes], length: int | None, expected: set[str]
    ) -> None:
        """Stream bytes to storage, record them, and wake the inspect workers up.

        Raises:
            Conflict: it has its bytes already.
            TooLarge, QuotaExceeded: before the first byte where the length is known, else while they stream.
            NoBytes, DigestMismatch: nothing is kept.
        """
        room = await asyncio.to_thread(self._room, key_id, identifier, length)
        # a name of its own for each PUT: of two at once, one becomes the upload, and cannot lose its bytes to the other
        key = keys.upload(identifier, secrets.token_hex(8))
        try:
            stored = await storage().put_stream(key, chunks, room.size)
        except TooLarge as error:
            raise room.exceeded() from error
        try:
            if stored.size == 0:
                raise NoBytes("Send the raw bytes as the body: curl -T FILE LINK.")
            digests.require(expected, stored.sha256)
            await asyncio.to_thread(self._accept, key_id, identifier, key, stored)
        except ApiError:
            await asyncio.to_thread(storage().delete, key)
            raise
        await asyncio.to_thread(wake_up, "inspect")

    def _room(self, key_id: str, identifier: str, length: int | None) -> Room:
        with reading() as session:
            self._require_open(self.find(session, key_id, identifier))
            return room_for_bytes(session, key_id, length)

    def _accept(self, key_id: str, identifier: str, key: str, stored: Stored) -> None:
        with transaction() as session:
            lock(session, key_id)
            room_for_bytes(session, key_id, stored.size)
            changed = session.execute(
                update(self.record)
                .where(*self._mine(key_id), self.record.id == identifier, self.record.status.in_(OPEN))
                .values(
                    status=UploadStatus.INSPECTING,
                    upload_key=key,
                    size=stored.size,
                    sha256=stored.sha256,
                    findings=None,
                    problem=None,
                    updated_at=now(),
                )
                .returning(self.record.id)
            ).scalar()
            if changed is None:
                self._require_open(self.find(session, key_id, identifier))
            request = {"request_id": current_request_id()}
            session.add(Inspection(**request, id=new_id("ins"), kind=self.kind, subject_id=identifier, key_id=key_id))

    def _require_open(self, record: R) -> None:
        if record.status not in OPEN:
            raise Conflict(f"This {self.kind} has its bytes already, and is {record.status}: make a new one.")

    def _mine(self, key_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return self.record.key_id == key_id, self.record.deleted_at.is_(None)


def _reason(session: Session, record: Teacher | Dataset | File) -> str | None:
    if record.status == UploadStatus.WAITING:
        return "waits for its bytes: PUT them to the link in 'upload'"
    if record.status == UploadStatus.INSPECTING:
        return "; ".join(filter(None, ("waits for the end of its inspection", absence(session, "inspect"))))
    return None


def _uses(identifier: str, key_id: str) -> ColumnElement[bool]:
    # an id may stand anywhere in a spec (ensembles, weights, statistics), and is long enough to be found as text
    named = cast(Job.resolved, String).contains(identifier)
    columns = or_(Job.teacher_id == identifier, Job.dataset_id == identifier, Job.evaluation_id == identifier)
    return (Job.key_id == key_id) & Job.status.in_(UNFINISHED) & Job.deleted_at.is_(None) & (columns | named)


def _plain(identifier: str) -> str:
    return identifier.replace("\0", "")  # which Postgres refuses, and which no id contains
