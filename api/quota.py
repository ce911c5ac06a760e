"""How many bytes a key has stored, and how many more it may."""

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.orm import Session

from api.errors import QuotaExceeded, TooLarge
from models.records import Artifact, Dataset, File, Job, Preview, Teacher
from models.settings import settings
from models.status import UploadStatus


def used_bytes(session: Session, key_id: str) -> int:
    """Bytes that a key's uploads and the results of its jobs take up."""
    total = 0
    for record in (Teacher, Dataset, File):
        size = case(
            (record.status == UploadStatus.READY, func.coalesce(record.blob_size, record.size)),
            (record.status == UploadStatus.INSPECTING, record.size),
            else_=0,
        )
        query = select(cast(func.coalesce(func.sum(size), 0), BigInteger))
        total += session.scalar(query.where(record.key_id == key_id, record.deleted_at.is_(None))) or 0
    for result in (Artifact, Preview):
        sums = select(cast(func.coalesce(func.sum(result.size), 0), BigInteger)).join(Job, Job.id == result.job_id)
        total += session.scalar(sums.where(Job.key_id == key_id, Job.deleted_at.is_(None))) or 0
    return total


def too_large(limit: int) -> TooLarge:
    """The error for bytes past a limit, be it the key's or everybody's."""
    if limit < settings().upload_bytes:
        return QuotaExceeded(f"This key may store {max(limit, 0)} more bytes: delete what you no longer need.")
    return TooLarge(f"An upload may have {limit} bytes.")
