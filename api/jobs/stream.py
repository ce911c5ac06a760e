"""A job's events as they happen, as server-sent events.

Every event has its number as `id`, so that `Last-Event-ID` goes on without gap or repeat. The newest figures come as
messages of type `metrics` without an id: they are a state, not a thing that happened, and the newest of them is all
that a late listener needs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.http.errors import NotFound
from api.jobs import outputs
from api.jobs.feed import BATCH, Feeds, Message, message_of

SILENCE_SECONDS = 15.0
"""A comment is sent so often while nothing happens, so that neither side takes the connection for dead."""
LONGEST_SECONDS = 3600.0
"""Then the client comes again by itself, and shows its key again."""
RETRY_MILLISECONDS = 2000
CHUNK_BYTES = 2**15


async def stream(feeds: Feeds, key_id: str, job_id: str, after: int) -> AsyncIterator[bytes]:
    """The events with a number above `after`, and those to come, until the job has ended."""
    until = time.monotonic() + LONGEST_SECONDS
    shown = 0
    yield format_sse_event(retry=RETRY_MILLISECONDS)
    with feeds.joined(job_id) as feed:
        while time.monotonic() < until:
            changed = feed.changed
            if feed.seq is None and not feed.over:
                await changed.wait()
                continue
            while messages := await _following(feed.after(after), key_id, job_id, after):
                for chunk in _chunks(messages):
                    yield chunk
                after = messages[-1].seq
            if feed.figures_number != shown:
                shown = feed.figures_number
                yield feed.figures
            if feed.over and not feed.after(after):
                return
            if changed is feed.changed:
                try:
                    await asyncio.wait_for(changed.wait(), SILENCE_SECONDS)
                except TimeoutError:
                    yield KEEPALIVE_COMMENT


async def _following(kept: list[Message] | None, key_id: str, job_id: str, after: int) -> Sequence[Message]:
    """What comes after an event: as the feed keeps it, else from the database."""
    if kept is not None:
        return kept
    try:
        page = await run_in_threadpool(outputs.events, key_id, job_id, after, BATCH)
    except NotFound:  # deleted meanwhile
        return []
    return [message_of(event) for event in page.data]


def _chunks(messages: Sequence[Message]) -> Iterator[bytes]:
    """Messages joined, so that a burst is not sent one by one."""
    joined: list[bytes] = []
    size = 0
    for message in messages:
        joined.append(message.text)
        size += len(message.text)
        if size >= CHUNK_BYTES:
            yield b"".join(joined)
            joined, size = [], 0
    if joined:
        yield b"".join(joined)
