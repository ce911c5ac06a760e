"""Authentication by API key, and the first key of a new database.

A key is `dsk_` and 43 random characters (256 bits). It has enough entropy that storing its plain SHA-256 is safe. It is
shown once.
"""

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from api.access import last_use
from api.access.known_keys import KnownKeys
from api.access.rates import Rates, Usage
from api.access.scopes import SCOPES
from api.http.errors import TooMany, Unauthorised
from models.database import now, reading, transaction
from models.records import Key
from models.scheduling.key_limits import KeyLimits, limits_of
from models.settings import settings

KEY_PATTERN = re.compile(r"dsk_[A-Za-z0-9_-]{20,128}")
FIRST_KEY_ID = "key_" + "0" * 32
"""Id of the first key. Every process that finds an empty database inserts this id, so only one of them succeeds."""
LAST_USED_SECONDS = 60
"""Precision of `last_used_at`: it is written at most once in this time, not at every request."""
MAX_KNOWN = 10_000

log = structlog.get_logger("api")
failures = Rates()
requests = Rates()
"""Requests of each key to this process."""
_known: dict[str, None] = {}
"""Hashes of keys that were accepted before. They are not blocked when the same address sends too many wrong keys."""


@dataclass(frozen=True)
class Caller:
    """The key of a request, its scopes and its limits (None: unlimited)."""

    key_id: str
    scopes: frozenset[str]
    limits: KeyLimits | None


known = KnownKeys[Caller]()
"""Callers that this process has just looked up. Whoever changes a key forgets them."""
_look_ups: dict[tuple[str | None, str], asyncio.Task[Caller]] = {}
OPERATOR = Caller("", frozenset(SCOPES), None)
"""Caller of the command line, which has access to the database: all scopes and no limits."""


def make_key() -> str:
    """A new key, as a client sends it."""
    return f"dsk_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """The SHA-256 of a key in hex, which is what the database stores."""
    return hashlib.sha256(key.encode()).hexdigest()


def authenticate(header: str | None, address: str = "") -> Caller:
    """The caller whose key is in an `Authorization` header.

    Raises:
        Unauthorised: the header or the key is missing or malformed, or the key is unknown, expired or revoked.
        TooMany: this address has sent too many wrong keys.
    """
    if header is None:
        raise Unauthorised(f"The Authorization header is missing. Send 'Authorization: Bearer dsk_…'. {_key_hint()}")
    scheme, given = _parts(header)
    digest = hash_key(given)
    if digest not in _known:
        _require_few_failures(address)
    if scheme.lower() != "bearer" or not KEY_PATTERN.fullmatch(given):
        raise _failed(address, "The Authorization header is malformed. Send 'Authorization: Bearer dsk_…'.")
    caller = _look_up(digest)
    if caller is None:
        raise _failed(address, f"The key is unknown, expired or revoked. {_key_hint()}")
    _known[digest] = None
    if len(_known) > MAX_KNOWN:
        del _known[next(iter(_known))]
    return caller


async def caller_of(header: str | None, address: str) -> Caller:
    """The caller of a request, like `authenticate`; concurrent requests with the same header share one look-up."""
    caller, name = known_caller(header), (header, address)
    if caller is not None:
        return caller
    if name not in _look_ups:
        _look_ups[name] = asyncio.create_task(run_in_threadpool(authenticate, header, address))
        _look_ups[name].add_done_callback(lambda task: _forget_look_up(name, task))
    return await asyncio.shield(_look_ups[name])  # a client that goes must not end the look-up of another


def _forget_look_up(name: tuple[str | None, str], task: asyncio.Task[Caller]) -> None:
    del _look_ups[name]
    if not task.cancelled():
        task.exception()  # else asyncio complains about it if all its clients have gone


def known_caller(header: str | None) -> Caller | None:
    """The caller of an `Authorization` header if this process has just looked it up; this asks no database."""
    scheme, given = _parts(header or "")
    return known.get(hash_key(given)) if scheme.lower() == "bearer" else None


def counted(caller: Caller, state: MutableMapping[str, Any]) -> Usage | None:
    """Count a request once, and keep the count in its state; None if the key has no limits."""
    if caller.limits is None:
        return None
    if "usage" not in state:
        state["usage"] = usage = requests.count(caller.key_id, caller.limits.requests_a_minute)
        state["rate"] = usage.headers()
    found: Usage = state["usage"]
    return found


def _parts(header: str) -> tuple[str, str]:
    scheme, _, given = header.partition(" ")
    return scheme, given.strip()


def _look_up(digest: str) -> Caller | None:
    read_at = known.clock()
    active = Key.revoked_at.is_(None) & or_(Key.expires_at.is_(None), Key.expires_at > now())
    matches = or_(Key.hash == digest, and_(Key.previous_hash == digest, Key.previous_until > now()))
    stale = or_(Key.last_used_at.is_(None), Key.last_used_at < now() - LAST_USED_SECONDS)
    columns = Key.id, Key.hash, Key.previous_hash, Key.scopes, Key.limits, stale
    with reading() as session:
        row = session.execute(select(*columns).where(matches, active)).one_or_none()
    if row is None or not any(hmac.compare_digest(stored or "", digest) for stored in (row[1], row[2])):
        return None
    if row[5]:
        last_use.note(row[0])
    caller = Caller(row[0], frozenset(row[3]), limits_of(row[4]))
    known.keep(digest, caller, read_at)
    return caller


def _require_few_failures(address: str) -> None:
    usage = failures.count(address, settings().failures_a_minute, more=0)
    if usage.used >= usage.quota:
        detail = f"This address has sent too many wrong keys. Try again in {usage.reset_seconds} seconds."
        raise TooMany(detail, headers={"Retry-After": str(usage.reset_seconds)})


def _failed(address: str, detail: str) -> Unauthorised:
    failures.count(address, settings().failures_a_minute)
    return Unauthorised(detail, 'Bearer realm="distillery", error="invalid_token"')


def _key_hint() -> str:
    """Where to get a key. The path of the data folder is not disclosed."""
    if settings().environment == "production":
        return "Ask the operator of this service for a key."
    return "The first start wrote a key to the file 'key' in the service's data folder (see README.md)."


def ensure_first_key() -> bool:
    """Create a key and write it to the key file if the database has no key; returns whether it did.

    The file is written before the row is committed, so the file exists as soon as the row is visible.
    """
    try:
        with transaction() as session:
            if session.scalar(select(exists().where(Key.id.is_not(None)))):
                return False
            key = make_key()
            session.add(Key(id=FIRST_KEY_ID, name="first", hash=hash_key(key), scopes=list(SCOPES)))
            session.flush()
            _write_privately(settings().key_file, key)
    except IntegrityError:  # another process has inserted the first key
        return False
    log.info("first_key_made", file=str(settings().key_file))
    return True


def _write_privately(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
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
