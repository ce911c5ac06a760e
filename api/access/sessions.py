"""Sessions of browsers: a random cookie whose SHA-256 is a row, which names the key that signed in.

The browser never holds the key. A session ends when its user signs out, after `LIFETIME_SECONDS`, and with its key.
"""

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, or_, select

from api.access.auth import Caller, authenticate
from api.access.known_keys import KnownKeys
from api.http.errors import Unauthorised
from models.database import now, reading, transaction
from models.records import BrowserSession, Key
from models.scheduling.key_limits import limits_of
from models.settings import settings

LIFETIME_SECONDS = 12 * 3600
RECENT_SECONDS = 30.0
"""Time since its last look-up after which a session is no longer read together with others."""
MOST_TOGETHER = 500
COLUMNS = BrowserSession.hash, Key.id, Key.name, Key.scopes, Key.limits
_known = KnownKeys[tuple[Caller, str]]()
_used: dict[str, float] = {}
_reading = threading.Lock()


def open_session(caller: Caller) -> str:
    """A new session of a key; returns the token of its cookie. Deletes sessions that have expired."""
    token = secrets.token_urlsafe(32)
    with transaction() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.expires_at < now()))
        row = BrowserSession(hash=_hash(token), key_id=caller.key_id, expires_at=now() + LIFETIME_SECONDS)
        session.add(row)
    return token


def session_caller(token: str) -> tuple[Caller, str] | None:
    """The caller of a session and the name of its key; None if the session or its key is no longer valid.

    All sessions that were used in the last seconds are read together, so that many browsers that poll cost one statement.
    """
    digest = _hash(token)
    if (found := _known.get(digest)) is not None:
        _used[digest] = _known.clock()
        return found
    with _reading:
        if (found := _known.get(digest)) is not None:  # another browser's request has just read it
            return found
        at = _known.clock()
        _used[digest] = at
        found = _read([*_recent(at), digest]).get(digest)
        if found is None:
            del _used[digest]
        return found


def recent_caller(token: str) -> tuple[tuple[Caller, str] | None, bool]:
    """The caller of a session that was used in the last seconds, None without one, and whether the session is known to be valid now.

    If it is not, a `Renewal` after this call reads it, and `session_caller` says afterwards what has become of it.
    """
    digest, at = _hash(token), _known.clock()
    if at - _used.get(digest, -RECENT_SECONDS) >= RECENT_SECONDS:
        return None, False
    _used[digest] = at
    return _known.last(digest), _known.get(digest) is not None


class Renewal:
    """Reads the sessions that were used in the last seconds as one column of another statement, so that browsers whose polls
    are answered by that statement cost none of their own."""

    def __init__(self) -> None:
        self._read_at = _known.clock()
        self._digests = _recent(self._read_at)

    def column(self, dialect: str) -> ScalarSelect[Any]:
        """A column whose value, the same in every row, is a JSON list of the valid sessions."""
        if dialect == "postgresql":
            entry = func.json_agg(func.json_build_array(*COLUMNS))
        else:
            *texts, scopes, limits = COLUMNS
            entry = func.json_group_array(func.json_array(*texts, func.json(scopes), func.json(limits)))
        return select(entry).where(*_valid(self._digests)).scalar_subquery()

    def take(self, value: Any) -> None:
        """Note the callers in the value of the column."""
        _note(json.loads(value) if isinstance(value, str) else value or [], self._read_at)


def _recent(at: float) -> list[str]:
    """The sessions that were used in the last seconds; older ones are forgotten."""
    for old in [name for name, used in list(_used.items()) if at - used > RECENT_SECONDS]:
        _used.pop(old, None)
    return list(_used)[-MOST_TOGETHER:]


def _valid(digests: list[str]) -> tuple[ColumnElement[bool], ...]:
    active = Key.revoked_at.is_(None) & or_(Key.expires_at.is_(None), Key.expires_at > now())
    mine = BrowserSession.hash.in_(digests), BrowserSession.key_id == Key.id
    return (*mine, BrowserSession.expires_at > now(), active)


def _read(digests: list[str]) -> dict[str, tuple[Caller, str]]:
    """The callers of sessions that are still valid; they are known from now on."""
    read_at = _known.clock()
    with reading() as session:
        rows = session.execute(select(*COLUMNS).where(*_valid(digests))).all()
    return _note(rows, read_at)


def _note(rows: Iterable[Sequence[Any]], read_at: float) -> dict[str, tuple[Caller, str]]:
    found = {
        digest: (Caller(key_id, frozenset(scopes), limits_of(limits)), name)
        for digest, key_id, name, scopes, limits in rows
    }
    for digest, caller in found.items():
        _known.keep(digest, caller, read_at)
    return found


def close_session(token: str) -> None:
    """End a session."""
    with transaction() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.hash == _hash(token)))
    _known.forget()


def form_token(token: str) -> str:
    """The token that every form of a session sends with its fields."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def is_form_token(token: str, given: str) -> bool:
    """Whether a form's token is that of the session."""
    return hmac.compare_digest(form_token(token).encode(), given.encode())


def caller_of_link(token: str, address: str) -> Caller:
    """The caller of a sign-in link, which works once: the first key of an embedded service.

    Raises:
        Unauthorised: the link was used before or is not valid.
        TooMany: this address has sent too many wrong keys.
    """
    path = settings().sign_in_file
    if not _take(path, token):
        detail = (
            "The sign-in link was used before, or is not valid. Sign in with a key, or run 'make sign-in' for another."
        )
        raise Unauthorised(detail)
    return authenticate(f"Bearer {settings().key_file.read_text().strip()}", address)


def _take(path: Path, token: str) -> bool:
    """Remove the file of a link if it is the one of this token; only one caller succeeds."""
    try:
        expected = json.loads(path.read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return False
    if not hmac.compare_digest(str(expected).encode(), _hash(token).encode()):
        return False
    mine = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(mine)
    except FileNotFoundError:  # another request has used it
        return False
    with suppress(OSError):
        mine.unlink()
    return True


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
