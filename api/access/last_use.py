"""Writes when keys were last used, beside the requests: a request neither waits for this write nor fails with it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy import update
from starlette.concurrency import run_in_threadpool

from models.database import UNAVAILABLE, now, transaction
from models.records import Key

WRITE_SECONDS = 1.0
log = structlog.get_logger("api")
_lock = threading.Lock()
_used: set[str] = set()


def note(key_id: str) -> None:
    """Remember that a key is used."""
    with _lock:
        _used.add(key_id)


def write() -> None:
    """Write the uses since the last call. If the database cannot be written, they are dropped: the next use counts."""
    with _lock:
        keys = sorted(_used)
        _used.clear()
    if not keys:
        return
    try:
        with transaction() as session:
            session.execute(update(Key).where(Key.id.in_(keys)).values(last_used_at=now()))
    except UNAVAILABLE as error:
        log.warning("last_use_not_written", keys=len(keys), error=type(error).__name__)


@asynccontextmanager
async def writing() -> AsyncIterator[None]:
    """While this context is open, uses are written about every second."""
    task = asyncio.create_task(_write_regularly())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _write_regularly() -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        await run_in_threadpool(write)
