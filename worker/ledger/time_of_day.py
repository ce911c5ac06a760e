"""This machine's time of day, compared with the database's."""

import time

import structlog
from sqlalchemy import select

from models.database import now, reading
from models.settings import settings

MOST_SECONDS = 300.0
"""Difference from which on a worker with a bucket claims nothing: S3 servers refuse requests that are 15 minutes off."""
log = structlog.get_logger(__name__)


def seconds_off() -> float:
    """How far this machine's time of day is ahead of the database's, in seconds; negative if it is behind."""
    before = time.time()
    with reading() as session:
        found = session.scalars(select(now())).one()
    return (before + time.time()) / 2 - found


def is_right() -> bool:
    """Whether the time of day is right enough to claim work; if not, an error is logged. A storage folder needs no time."""
    if not settings().storage.startswith("s3:") or abs(off := seconds_off()) <= MOST_SECONDS:
        return True
    message = f"the clock of this machine is {off:+.0f} s off the database's: this worker claims nothing"
    log.error("CLOCK_OFF", message=message, seconds=round(off))
    return False
