"""Helpers for storage tests: a bucket of the S3 server, the bytes of a blob, and a writer that never ends."""

import uuid

from models.storage.blobs import Storage
from tests.servers import S3

WRITER = """
import time
from models.storage.opening import storage

def chunks():
    while True:
        yield bytes(8 * 2**20)
        time.sleep(0.05)

storage().put("uploads/x/1", chunks())
"""


def s3_settings(s3: S3) -> dict[str, str]:
    """Settings for a prefix of its own in the bucket, with credentials."""
    return {
        "storage_url": f"s3://{s3.bucket}/tests/{uuid.uuid4().hex}",
        "storage_endpoint": s3.endpoint,
        "storage_access_key": s3.access_key,
        "storage_secret_key": s3.secret_key,
    }


def whole(blobs: Storage, key: str, *part: int) -> bytes:
    """The bytes of a blob, or the range from `part[0]` to `part[1]`."""
    return b"".join(blobs.get(key, *part))
