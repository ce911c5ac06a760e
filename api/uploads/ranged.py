"""Receiving an upload in several ranges, each by a PUT of its own, so that a broken connection costs one range.

The ranges come in order; each is a blob, and the worker joins them. A range that was received before may be sent again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Generic

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.access.quota import room_for_bytes
from api.http import digests
from api.http.errors import ApiError, BadHeader, Conflict
from api.uploads.ranges import ByteRange, discard, known, received
from api.uploads.service import B, R, Uploads
from models.database import now, reading, transaction
from models.queue.wake_up import wake_up
from models.scheduling.key_usage import lock
from models.status import UploadStatus
from models.storage import keys
from models.storage.chunks import Stored
from models.storage.errors import TooLarge
from models.storage.opening import storage


@dataclass(frozen=True)
class RangedUpload(Generic[R, B]):
    """One upload of a key, which is sent in ranges."""

    uploads: Uploads[R, B]
    key_id: str
    identifier: str

    async def receive(
        self, part: ByteRange, chunks: AsyncIterator[bytes], of_body: set[str], of_whole: set[str]
    ) -> None:
        """Store a range and record it; after the last one, queue the inspection. If it raises, nothing of the range is kept.

        Raises:
            Conflict: the upload has its bytes, or another range is next.
            TooLarge, QuotaExceeded: the whole is too large; raised at the first range.
            BadHeader, DigestMismatch: the body is not that of the range, or its SHA-256 is not one of `of_body`.
        """
        if await asyncio.to_thread(self._is_known, part):
            await discard(chunks)
            return
        key = keys.upload(self.identifier, secrets.token_hex(8))
        try:
            stored = await storage().put_stream(key, chunks, part.size)
        except TooLarge as error:
            raise BadHeader(f"The body has more than the {part.size} bytes that Content-Range names.") from error
        try:
            if stored.size != part.size:
                raise BadHeader(f"The body has {stored.size} bytes, but Content-Range names {part.size}.")
            digests.require(of_body, stored.sha256)
            replaced = await asyncio.to_thread(self._add, part, key, stored, of_whole)
        except ApiError:
            await asyncio.to_thread(storage().delete, key)
            raise
        for old in replaced:
            await asyncio.to_thread(storage().delete, old)
        if part.is_last:
            await asyncio.to_thread(wake_up, "inspect")

    def _is_known(self, part: ByteRange) -> bool:
        """Whether the range was received before; checks first that it may be sent now."""
        with reading() as session:
            record = self.uploads.find(session, self.key_id, self.identifier)
            if known(record.upload_parts, part) and part.first and record.size == part.total:
                return True
            self._check(session, record, part)
            return False

    def _check(self, session: Session, record: Any, part: ByteRange) -> None:
        self.uploads.require_open(record)
        done = received(record.upload_parts) if record.status == UploadStatus.WAITING else 0
        if part.first == 0:
            room_for_bytes(session, self.key_id, part.total - self._reserved(record))
        elif part.first != done or part.total != record.size:
            whole = f" of {record.size}" if done else ""
            raise Conflict(
                f"The next byte of this {self.uploads.kind} is {done}{whole}, but the range begins at {part.first} of"
                f" {part.total}. Continue there, or begin again at 0."
            )

    def _reserved(self, record: Any) -> int:
        """Bytes that count for this upload already."""
        return (record.size or 0) if record.upload_parts else 0

    def _add(self, part: ByteRange, key: str, stored: Stored, of_whole: set[str]) -> list[str]:
        """Record a range that is stored; returns the keys of ranges that it replaces."""
        with transaction() as session:
            lock(session, self.key_id)
            record: Any = self.uploads.find(session, self.key_id, self.identifier, lock=True)
            self._check(session, record, part)
            begins = part.first == 0
            replaced = [old["key"] for old in record.upload_parts or []] if begins else []
            parts: list[Any] = [] if begins else list(record.upload_parts)
            record.upload_parts = [*parts, {"key": key, "size": stored.size, "sha256": stored.sha256}]
            record.upload_key, record.size, record.sha256 = None, part.total, next(iter(of_whole), None)
            record.status = UploadStatus.INSPECTING if part.is_last else UploadStatus.WAITING
            record.findings = record.problem = None
            record.updated_at = session.scalars(select(now())).one()
            if part.is_last:
                session.add(self.uploads.inspection_of(self.identifier, self.key_id))
            return replaced
