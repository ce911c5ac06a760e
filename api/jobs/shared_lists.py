"""Pages of job lists that clients share if they accept an older one (`Cache-Control: max-age=N`), as pages in browsers do."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from api.http.links import current_base
from api.http.paging import Window
from api.jobs import service
from models.status import JobStatus

MOST_SECONDS = 10.0
"""Longest age that a client can ask for."""
MOST_BYTES = 16 * 2**20
"""Most bytes of pages that are kept."""
MAX_AGE = re.compile(r"(?:^|,)\s*max-age\s*=\s*(\d{1,6})\s*(?:,|$)", re.IGNORECASE)

Name = tuple[str, Window, tuple[JobStatus, ...], str]
"""Key, page, filter and base URL: what a page depends on besides the database."""


@dataclass(frozen=True)
class Listed:
    """A page as JSON, and its age in seconds."""

    body: bytes
    age: float


@dataclass
class _Read:
    """A read that began at `began`, after `changes` changes by this process."""

    task: asyncio.Task[bytes]
    began: float
    changes: int


def accepted_age(header: str | None) -> float:
    """The age in seconds that a request's `Cache-Control` accepts (RFC 9111, section 5.2.1.1); 0 without `max-age`."""
    found = MAX_AGE.search(header or "")
    return min(float(found[1]), MOST_SECONDS) if found else 0.0


class SharedLists:
    """The pages that this process has read. For use on the event loop, except `changed`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reads: OrderedDict[Name, _Read] = OrderedDict()
        self._bytes = 0
        self._changes = 0

    def changed(self) -> None:
        """Do not use any page whose read began before this call. Thread-safe."""
        self._changes += 1

    async def page(self, key_id: str, window: Window, statuses: Sequence[JobStatus], max_age: float) -> Listed:
        """A page of a key's jobs, whose read began at most `max_age` seconds ago.

        Raises:
            BadCursor: the window's cursor is malformed.
        """
        if not max_age:
            return Listed(await _encoded(key_id, window, statuses), 0.0)
        name, now = (key_id, window, tuple(statuses), current_base()), self._clock()
        read = self._reads.get(name)
        if read is None or read.changes != self._changes or now - read.began > max_age:
            read = self._start(name, now)
        body = await asyncio.shield(read.task)  # a client that goes must not end the read of another
        return Listed(body, self._clock() - read.began)

    def _start(self, name: Name, now: float) -> _Read:
        key_id, window, statuses, _ = name
        self._forget(name)
        self._reads[name] = read = _Read(asyncio.create_task(_encoded(key_id, window, statuses)), now, self._changes)
        read.task.add_done_callback(lambda task: self._keep(name, read))
        return read

    def _keep(self, name: Name, read: _Read) -> None:
        size = _size(read)
        if self._reads.get(name) is not read:
            return
        if size is None:
            del self._reads[name]
            return
        self._bytes += size
        while self._bytes > MOST_BYTES:
            self._forget(next(each for each, other in self._reads.items() if other.task.done()))

    def _forget(self, name: Name) -> None:
        read = self._reads.pop(name, None)
        if read is not None and read.task.done():
            self._bytes -= _size(read) or 0


def _size(read: _Read) -> int | None:
    """Bytes of the page that was read; None if the read has failed."""
    return None if read.task.cancelled() or read.task.exception() else len(read.task.result())


async def _encoded(key_id: str, window: Window, statuses: Sequence[JobStatus]) -> bytes:
    def read() -> bytes:
        return service.page(key_id, window, statuses).model_dump_json().encode()

    return await run_in_threadpool(read)
