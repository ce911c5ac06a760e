"""Bytes that are stored for a key."""

from typing import Any

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.orm import Session

from models.records import Artifact, Dataset, File, Job, Key, Preview, Teacher
from models.scheduling.key_limits import limits_of_key
from models.status import UploadStatus


def lock(session: Session, key_id: str) -> None:
    """Lock the key's row, so that only one transaction at a time checks a quota and adds to the usage."""
    session.execute(select(Key.id).where(Key.id == key_id).with_for_update(key_share=True))


def used_bytes(session: Session, key_id: str) -> int:
    """Bytes stored for a key: its uploads as sent and in canonical form, and the artifacts and previews of its jobs."""
    total = 0
    for record in (Teacher, Dataset, File):
        sent = case((record.upload_key.is_not(None) | record.upload_parts.is_not(None), record.size), else_=0)
        canonical = case((record.status == UploadStatus.READY, func.coalesce(record.blob_size, record.size)), else_=0)
        mine = record.key_id == key_id, record.deleted_at.is_(None)
        total += session.scalar(_sum(func.coalesce(sent, 0) + func.coalesce(canonical, 0)).where(*mine)) or 0
    for result in (Artifact, Preview):
        sums = _sum(result.size).join(Job, Job.id == result.job_id)
        total += session.scalar(sums.where(Job.key_id == key_id, Job.deleted_at.is_(None))) or 0
    return total


def room_of_upload(session: Session, key_id: str, sent: int) -> int:
    """Bytes that the canonical form of an upload of `sent` bytes may have: it replaces the bytes as sent."""
    return limits_of_key(session, key_id).storage_bytes - used_bytes(session, key_id) + sent


def _sum(size: Any) -> Any:
    return select(cast(func.coalesce(func.sum(size), 0), BigInteger))
