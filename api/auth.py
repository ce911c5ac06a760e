"""Keys: who asks, and the first key of a new database.

A key is `dsk_` and 43 random characters (256 bits), so that a plain SHA-256 of it is safe to keep; it is shown once.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path

import structlog
from sqlalchemy import exists, or_, select, update
from sqlalchemy.exc import IntegrityError

from api.errors import Unauthorised
from models.database import now, reading, transaction
from models.records import Key
from models.settings import settings

FORM = re.compile(r"dsk_[A-Za-z0-9_-]{20,128}")
FIRST_KEY_ID = "key_" + "0" * 32
"""Every process that finds an empty database makes the key of this id, so that the database lets one of them win."""
SEEN_SECONDS = 60
"""`last_used_at` is that exact, to spare a write a request."""

log = structlog.get_logger("api")


def make_key() -> str:
    """A new key, as its owner sends it."""
    return f"dsk_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def authenticate(header: str | None) -> str:
    """The id of the key in an `Authorization` header.

    Raises:
        Unauthorised: there is none, it is unknown, it has expired or was revoked.
    """
    if header is None:
        raise Unauthorised("Send your key: 'Authorization: Bearer dsk_…'.")
    scheme, _, given = header.partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not FORM.fullmatch(given):
        raise _unknown("The header is not of the form 'Authorization: Bearer dsk_…'.")
    digest = hash_key(given)
    alive = Key.revoked_at.is_(None) & or_(Key.expires_at.is_(None), Key.expires_at > now())
    stale = or_(Key.last_used_at.is_(None), Key.last_used_at < now() - SEEN_SECONDS)
    with reading() as session:
        row = session.execute(select(Key.id, Key.hash, stale).where(Key.hash == digest, alive)).one_or_none()
    if row is None or not hmac.compare_digest(row[1], digest):
        raise _unknown("The key is not known, has expired or was revoked.")
    if row[2]:
        with transaction() as session:
            session.execute(update(Key).where(Key.id == row[0], stale).values(last_used_at=now()))
    return str(row[0])


def _unknown(detail: str) -> Unauthorised:
    return Unauthorised(detail, 'Bearer realm="distillery", error="invalid_token"')


def ensure_first_key() -> bool:
    """Make a key if the database has none, and leave it in the key file; says whether it did.

    The file is there before the row is committed, so that whoever sees the row finds its key.
    """
    try:
        with transaction() as session:
            if session.scalar(select(exists().where(Key.id.is_not(None)))):
                return False
            key = make_key()
            session.add(Key(id=FIRST_KEY_ID, name="first", hash=hash_key(key), scopes=[]))
            session.flush()
            _write_privately(settings().key_file, key)
    except IntegrityError:  # another process was faster
        return False
    log.info("first_key_made", file=str(settings().key_file))
    return True


def _write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
