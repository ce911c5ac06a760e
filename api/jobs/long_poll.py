"""Long polling: delay a response until a job has changed."""

import time
import zlib

from starlette.concurrency import run_in_threadpool

from api.http.conditional import matches
from api.http.row_watch import RowWatch, token_of
from api.jobs import service
from api.jobs.schemas import JobBody
from models.records import Job


def tag_of(job: JobBody) -> str:
    """The entity tag of a job: its version, and the fields that change without a new version: the reason (it depends on
    the running workers) and the position in the queue."""
    unversioned = f"{job.reason} {job.queue_position}"
    return f'"{job.id}-{job.version}-{zlib.crc32(unversioned.encode()):08x}"'


async def wait_for_change(watch: RowWatch, key_id: str, job_id: str, wait: int, known: str | None) -> JobBody:
    """The job as soon as it has ended or its tag differs from `known`, at the latest after `wait` seconds."""
    deadline = time.monotonic() + wait
    while True:
        row, job = await run_in_threadpool(service.get, key_id, job_id)
        known = known or tag_of(job)
        left = deadline - time.monotonic()
        if job.status.final or not matches(known, tag_of(job)) or left <= 0 or watch.closing:
            return job
        await watch.changed(Job, job_id, token_of(row), left)
