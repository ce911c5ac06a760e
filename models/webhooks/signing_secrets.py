"""The secrets that sign webhooks: one per key, and after a rotation also the previous ones until they expire."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from models.database import now
from models.records import Key, WebhookSecret

SECRET_BYTES = 32
OVERLAP_SECONDS = 24 * 3600.0
"""How long the previous secret stays valid after a rotation."""
MOST_VALID = 3


@dataclass(frozen=True)
class Rotated:
    """A new secret, and the time when the previous one expires (None if there was none)."""

    record: WebhookSecret
    previous_until: float | None


def rotate(session: Session, key_id: str) -> Rotated:
    """Create a secret for a key. The current one, if any, stays valid for `OVERLAP_SECONDS`."""
    _lock(session, key_id)  # concurrent rotations run one after the other
    valid = current(session, key_id)
    until = session.scalars(select(now() + OVERLAP_SECONDS)).one()
    mine = WebhookSecret.key_id == key_id
    session.execute(update(WebhookSecret).where(mine, WebhookSecret.expires_at.is_(None)).values(expires_at=until))
    kept = [secret.number for secret in valid[: MOST_VALID - 1]]
    session.execute(delete(WebhookSecret).where(mine, WebhookSecret.number.not_in(kept)))
    text = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
    made = WebhookSecret(key_id=key_id, number=valid[0].number + 1 if valid else 1, secret=text)
    session.add(made)
    session.flush()
    return Rotated(made, until if valid else None)


def current(session: Session, key_id: str) -> Sequence[WebhookSecret]:
    """The valid secrets of a key, the newest first."""
    valid = or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > now())
    query = select(WebhookSecret).where(WebhookSecret.key_id == key_id, valid)
    return session.scalars(query.order_by(WebhookSecret.number.desc())).all()


def signing(session: Session, key_id: str) -> list[str]:
    """The secrets to sign with, the newest first. For a key without a secret, one is created; the API never shows
    it."""
    valid = current(session, key_id)
    if not valid:
        _lock(session, key_id)
        valid = current(session, key_id) or [rotate(session, key_id).record]
    return [secret.secret for secret in valid]


def _lock(session: Session, key_id: str) -> None:
    session.execute(select(Key.id).where(Key.id == key_id).with_for_update())
