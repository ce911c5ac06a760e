"""Keys: who asks, and the first key of a new database.

A key is `dsk_` and 43 random characters (256 bits), so that a plain SHA-256 of it is safe to keep; it is shown once.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.exc import IntegrityError

from api.access.rates import Rates
from api.access.scopes import SCOPES
from api.http.errors import TooMany, Unauthorised
from models.database import now, reading, transaction
from models.records import Key
from models.scheduling.key_limits import KeyLimits, limits_of
from models.settings import settings

FORM = re.compile(r"dsk_[A-Za-z0-9_-]{20,128}")
FIRST_KEY_ID = "key_" + "0" * 32
"""Every process that finds an empty database makes the key of this id, so that the database lets one of them win."""
SEEN_SECONDS = 60
"""`last_used_at` is that exact, to spare a write a request."""
MOST_KNOWN = 10_000

log = structlog.get_logger("api")
failures = Rates()
requests = Rates()
"""Requests of each key, to this process."""
_known: dict[str, None] = {}
"""Hashes that opened before: their owners are let in though others fail from the same address."""


@dataclass(frozen=True)
class Caller:
    """Who asks: a key, what it may do, and what it may use (None for all there is)."""

    key_id: str
    scopes: frozenset[str]
    limits: KeyLimits | None


OPERATOR = Caller("", frozenset(SCOPES), None)
"""Whoever reaches the database itself."""


def make_key() -> str:
    """A new key, as its owner sends it."""
    return f"dsk_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def authenticate(header: str | None, address: str = "") -> Caller:
    """Whose key is in an `Authorization` header.

    Raises:
        Unauthorised: there is none, it is unknown, it has expired or was revoked.
        TooMany: too many wrong ones came from this address.
    """
    if header is None:
        raise Unauthorised(f"Send your key: 'Authorization: Bearer dsk_…'. {_where()}")
    scheme, _, given = header.partition(" ")
    given = given.strip()
    digest = hash_key(given)
    if digest not in _known:
        _require_few_failures(address)
    if scheme.lower() != "bearer" or not FORM.fullmatch(given):
        raise _failed(address, "The header is not of the form 'Authorization: Bearer dsk_…'.")
    caller = _look_up(digest)
    if caller is None:
        raise _failed(address, f"The key is not known, has expired or was revoked. {_where()}")
    _known[digest] = None
    if len(_known) > MOST_KNOWN:
        del _known[next(iter(_known))]
    return caller


def _look_up(digest: str) -> Caller | None:
    alive = Key.revoked_at.is_(None) & or_(Key.expires_at.is_(None), Key.expires_at > now())
    opens = or_(Key.hash == digest, and_(Key.previous_hash == digest, Key.previous_until > now()))
    stale = or_(Key.last_used_at.is_(None), Key.last_used_at < now() - SEEN_SECONDS)
    columns = Key.id, Key.hash, Key.previous_hash, Key.scopes, Key.limits, stale
    with reading() as session:
        row = session.execute(select(*columns).where(opens, alive)).one_or_none()
    if row is None or not any(hmac.compare_digest(kept or "", digest) for kept in (row[1], row[2])):
        return None
    if row[5]:
        with transaction() as session:
            session.execute(update(Key).where(Key.id == row[0], stale).values(last_used_at=now()))
    return Caller(row[0], frozenset(row[3]), limits_of(row[4]))


def _require_few_failures(address: str) -> None:
    standing = failures.count(address, settings().failures_a_minute, more=0)
    if standing.used >= standing.quota:
        detail = f"Too many wrong keys came from this address: try again in {standing.reset_seconds} seconds."
        raise TooMany(detail, headers={"Retry-After": str(standing.reset_seconds)})


def _failed(address: str, detail: str) -> Unauthorised:
    failures.count(address, settings().failures_a_minute)
    return Unauthorised(detail, 'Bearer realm="distillery", error="invalid_token"')


def _where() -> str:
    """Where a key is to be had; the folder itself is not told to strangers."""
    if settings().environment == "production":
        return "Ask whoever runs this service for one."
    return "The first start left one in the file 'key' of the service's data folder (see README.md)."


def ensure_first_key() -> bool:
    """Make a key if the database has none, and leave it in the key file; says whether it did.

    The file is there before the row is committed, so that whoever sees the row finds its key.
    """
    try:
        with transaction() as session:
            if session.scalar(select(exists().where(Key.id.is_not(None)))):
                return False
            key = make_key()
            session.add(Key(id=FIRST_KEY_ID, name="first", hash=hash_key(key), scopes=list(SCOPES)))
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
