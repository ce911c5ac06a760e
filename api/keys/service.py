"""Keys in the database: create, read, change, rotate, revoke."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from api.access import quota
from api.access.auth import Caller, hash_key, known, make_key, requests
from api.http.errors import Conflict, Forbidden, Invalid, NotFound
from api.http.links import link
from api.http.paging import Page, Window
from api.keys.schemas import KeyBody, KeyEdit, KeyMade, KeySpec, KeyUsage, KeyUse
from models.database import now, reading, transaction
from models.records import Key
from models.records.columns import new_id
from models.scheduling.key_limits import KeyLimits, limits_of
from models.scheduling.key_usage import used_bytes
from models.status import JobStatus

DAY_SECONDS = 24 * 3600


def create(caller: Caller, spec: KeySpec) -> KeyMade:
    """Create a key, and return it with its secret.

    Raises:
        Forbidden, Invalid: its scopes or limits would exceed those of the caller.
    """
    secret = make_key()
    with transaction() as session:
        inherited = _own_limits(session, caller.key_id)
        own = inherited | spec.limits.model_dump(exclude_none=True)
        _require_within(caller, spec.scopes, limits_of(own))
        at = session.scalars(select(now())).one()
        expires_at = at + spec.expires_days * DAY_SECONDS if spec.expires_days else None
        key = Key(
            id=new_id("key"), name=spec.name, hash=hash_key(secret), scopes=list(spec.scopes), limits=own or None,
            expires_at=expires_at,
        )  # fmt: skip
        session.add(key)
        session.flush()
        return KeyMade.model_validate(_columns(key) | {"key": secret})


def page(window: Window) -> Page[KeyBody]:
    """One page of all keys, including revoked ones."""
    with reading() as session:
        return window.page(session, select(Key), Key.id, lambda key: KeyBody.model_validate(_columns(key)))


def show(key_id: str) -> KeyUse:
    """A key and its current usage."""
    with reading() as session:
        key = _find(session, key_id)
        limits = limits_of(key.limits)
        used = KeyUsage(
            stored_bytes=used_bytes(session, key.id),
            queued_jobs=quota.jobs_of(session, key.id, JobStatus.QUEUED),
            running_jobs=quota.jobs_of(session, key.id, JobStatus.RUNNING),
            requests=requests.count(key.id, limits.requests_a_minute, more=0).used,
        )
        return KeyUse.model_validate(_columns(key) | {"used": used})


def edit(caller: Caller, key_id: str, changes: KeyEdit) -> KeyBody:
    """Change a key's name, scopes or limits.

    Raises:
        Forbidden, Invalid: its scopes or limits would exceed those of the caller.
        Conflict: the change would remove the scope `admin` from the last key that has it.
    """
    given = changes.model_dump(exclude_unset=True)
    if "limits" in given:
        given["limits"] = changes.limits.model_dump(exclude_none=True) or None
    with transaction() as session:
        if "scopes" in given:
            _lock_active(session)
        key = _find(session, key_id, lock=True)
        if "scopes" in given or "limits" in given:
            scopes = given.get("scopes", key.scopes)
            _require_within(caller, scopes, limits_of(given.get("limits", key.limits)))
            if "admin" not in scopes:
                _require_another_admin(session, key)
        for name, value in given.items():
            setattr(key, name, value)
        session.flush()
        changed = KeyBody.model_validate(_columns(key))
    known.forget()
    return changed


def rotate(caller: Caller, key_id: str, grace_seconds: float) -> KeyMade:
    """Replace the secret of a key; the old one stays valid for `grace_seconds`. Its id, jobs and uploads do not change.

    Raises:
        Conflict: the key is revoked or expired.
        Forbidden, Invalid: its scopes or limits exceed those of the caller, who would learn its secret.
    """
    secret = make_key()
    with transaction() as session:
        key = _find(session, key_id, lock=True)
        at = session.scalars(select(now())).one()
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= at):
            raise Conflict(f"The key {key_id} is revoked or expired. Create a new one.")
        _require_within(caller, key.scopes, limits_of(key.limits))
        key.previous_hash = key.hash if grace_seconds else None
        key.previous_until = at + grace_seconds if grace_seconds else None
        key.hash = hash_key(secret)
        session.flush()
        made = KeyMade.model_validate(_columns(key) | {"key": secret})
    known.forget()
    return made


def revoke(key_id: str) -> KeyBody:
    """Revoke a key permanently; its jobs continue. Repeated calls change nothing.

    Raises:
        Conflict: it is the last key with the scope `admin`.
    """
    with transaction() as session:
        _lock_active(session)
        key = _find(session, key_id, lock=True)
        if key.revoked_at is None:
            _require_another_admin(session, key)
            key.revoked_at = session.scalars(select(now())).one()
            key.previous_hash = key.previous_until = None
            session.flush()
        revoked = KeyBody.model_validate(_columns(key))
    known.forget()
    return revoked


def _find(session: Session, key_id: str, lock: bool = False) -> Key:
    query = select(Key).where(Key.id == key_id)
    key = session.scalar(query.with_for_update() if lock else query)
    if key is None:
        raise NotFound(f"The key {key_id} does not exist.")
    return key


def _own_limits(session: Session, key_id: str) -> dict[str, Any]:
    return dict(session.scalar(select(Key.limits).where(Key.id == key_id)) or {})


def _require_within(caller: Caller, scopes: Iterable[str], limits: KeyLimits) -> None:
    """Require that scopes and limits do not exceed those of the caller."""
    missing = sorted(set(scopes) - caller.scopes)
    if missing:
        raise Forbidden(
            f"A key cannot grant scopes that it does not have, and the key of this request lacks {' and '.join(missing)}."
        )
    own = caller.limits.model_dump() if caller.limits else {}
    over = [
        (f"/limits/{name}", f"must be at most {most}, the limit of the key of this request")
        for name, most in own.items()
        if getattr(limits, name) > most
    ]
    if over:
        raise Invalid(over)


def _lock_active(session: Session) -> None:
    """Lock all active keys, so that two transactions cannot revoke the last two admin keys at once.

    All transactions lock in the same order, so they cannot deadlock.
    """
    session.execute(select(Key.id).where(Key.revoked_at.is_(None)).order_by(Key.id).with_for_update())


def _require_another_admin(session: Session, key: Key) -> None:
    """Require that another active key has the scope `admin`; the active keys must be locked."""
    if "admin" not in key.scopes:
        return
    active = Key.revoked_at.is_(None), or_(Key.expires_at.is_(None), Key.expires_at > now())
    others = session.scalars(select(Key.scopes).where(*active, Key.id != key.id))
    if not any("admin" in scopes for scopes in others):
        raise Conflict(f"{key.id} is the last key with the scope admin. Create another admin key first.")


def _columns(key: Key) -> dict[str, Any]:
    values = {column.key: getattr(key, column.key) for column in Key.__table__.columns}
    return values | {"limits": limits_of(key.limits), "links": {"self": link(f"/keys/{key.id}")}}
