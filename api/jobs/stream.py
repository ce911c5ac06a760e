"""Event streams: a job's events as server-sent events.

The `id` of a message is the number of its event, so `Last-Event-ID` continues without gaps or repeats. Messages of type
`metrics` hold the newest value of every metric and have no id: they are a state, so a client needs only the newest one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.http.errors import NotFound
from api.jobs import outputs
from api.jobs.feed import BEAT_SECONDS, Feeds
from api.jobs.feed_reads import BATCH, Message, message_of

KEEPALIVE_SECONDS = 15.0
"""Time without a message after which a comment is sent, so that neither side closes the connection as dead."""
MAX_SECONDS = 3600.0
"""Longest duration of one stream. Clients reconnect then, which checks their key again."""
RECONNECT_MILLISECONDS = 2000
CHUNK_BYTES = 2**15


async def stream(
    feeds: Feeds, key_id: str, job_id: str, after: int, beat_seconds: float = BEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Events with a number above `after`, past and future, until the job has ended; new ones are read every `beat_seconds`."""
    until = time.monotonic() + MAX_SECONDS
    sent_metrics = 0
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    with feeds.joined(job_id, beat_seconds) as feed:
        while time.monotonic() < until:
            changed = feed.changed
            if feed.seq is None and not feed.ended:
                await changed.wait()
                continue
            while messages := await _following(feed.after(after), key_id, job_id, after):
                for chunk in _chunks(messages):
                    yield chunk
                after = messages[-1].seq
            if feed.metrics_version != sent_metrics:
                sent_metrics = feed.metrics_version
                yield feed.metrics
            if feed.ended and not feed.after(after):
                return
            if changed is feed.changed:
                try:
                    await asyncio.wait_for(changed.wait(), KEEPALIVE_SECONDS)
                except TimeoutError:
                    yield KEEPALIVE_COMMENT


async def _following(buffered: list[Message] | None, key_id: str, job_id: str, after: int) -> Sequence[Message]:
    """The messages after an event, from the feed's buffer or else from the database."""
    if buffered is not None:
        return buffered
    try:
        page = await run_in_threadpool(outputs.events, key_id, job_id, after, BATCH)
    except NotFound:  # the job was deleted meanwhile
        return []
    return [message_of(event) for event in page.data]


def _chunks(messages: Sequence[Message]) -> Iterator[bytes]:
    """Messages joined into chunks, so that a burst needs few writes."""
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
