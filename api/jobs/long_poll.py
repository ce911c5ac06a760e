"""Long polling: delay a response until a job has changed."""

import time

from api.http.conditional import matches
from api.http.row_watch import RowWatch
from api.jobs.shared_reads import SharedReads, Shown
from models.records import Job


async def wait_for_change(
    reads: SharedReads, watch: RowWatch, key_id: str, job_id: str, wait: int, header: str | None
) -> Shown:
    """The job as soon as it has ended or its tag is not in `If-None-Match` (without that header: differs from its current
    one), at the latest after `wait` seconds."""
    deadline, known = time.monotonic() + wait, header
    while True:
        shown = await reads.read(key_id, job_id, header)
        known = known or shown.tag
        left = deadline - time.monotonic()
        if shown.final or not matches(known, shown.tag) or left <= 0 or watch.closing:
            return shown
        await watch.changed(Job, job_id, shown.token, left)
