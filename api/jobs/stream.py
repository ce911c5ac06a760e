"""A job's events as they happen, as server-sent events.

Every event has its number as `id`, so that `Last-Event-ID` goes on without gap or repeat. The newest figures come as
messages of type `metrics` without an id: they are a state, not a thing that happened, and the newest of them is all
that a late listener needs.
"""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.bodies import Shown
from api.errors import NotFound
from api.jobs import results
from api.jobs.schemas import Figure
from api.jobs.service import find, newest_figures
from api.watch import Token, Watch, token_of
from models.database import reading
from models.records import Job
from models.status import JobStatus

BATCH = 200
SILENCE_SECONDS = 15
"""A comment is sent so often while nothing happens, so that neither side takes the connection for dead."""


class Figures(Shown):
    """The newest value of every metric; `seq` is the number of the newest event before it."""

    seq: int
    type: Literal["metrics"] = "metrics"
    data: dict[str, Figure]


async def stream(watch: Watch, key_id: str, job_id: str, after: int) -> AsyncIterator[bytes]:
    """The events with a number above `after`, and those to come, until the job has ended."""
    figures: dict[str, Figure] = {}
    yield format_sse_event(retry=2000)
    while not watch.closing:
        try:
            token, final = await run_in_threadpool(_standing, key_id, job_id)
            while page := (await run_in_threadpool(results.events, key_id, job_id, after, BATCH)).data:
                for event in page:
                    yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
                after = page[-1].seq
        except NotFound:  # deleted meanwhile
            return
        newest = await run_in_threadpool(_figures, job_id)
        if newest != figures:
            figures = newest
            yield format_sse_event(data_str=Figures(seq=after, data=figures).model_dump_json(), event="metrics")
        if final:
            return
        yield KEEPALIVE_COMMENT
        await watch.changed(Job, job_id, token, SILENCE_SECONDS)


def _standing(key_id: str, job_id: str) -> tuple[Token, bool]:
    with reading() as session:
        job = find(session, key_id, job_id)
        return token_of(job), JobStatus(job.status).final


def _figures(job_id: str) -> dict[str, Figure]:
    with reading() as session:
        return newest_figures(session, job_id)
