"""Entity tags of jobs."""

import zlib


def tag_of(job_id: str, version: int, reason: str | None, queue_position: int | None) -> str:
    """The entity tag of a job: its version, and the fields that change without a new version: the reason (it depends on
    the running workers) and the position in the queue."""
    unversioned = f"{reason} {queue_position}"
    return f'"{job_id}-{version}-{zlib.crc32(unversioned.encode()):08x}"'
