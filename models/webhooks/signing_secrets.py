"""The secrets that webhooks are signed with: one a key, and for a while the one before it."""

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
"""After a rotation, the secret before it signs too for so long."""
MOST_ALIVE = 3


@dataclass(frozen=True)
class Rotated:
    """A new secret, and until when the one before it signs too (None if there was none)."""

    record: WebhookSecret
    previous_until: float | None


def rotate(session: Session, key_id: str) -> Rotated:
    """Make a key's secret, or a new one beside the one that it has."""
    _lock(session, key_id)  # two at once make two, one by one
    alive = current(session, key_id)
    until = session.scalars(select(now() + OVERLAP_SECONDS)).one()
    mine = WebhookSecret.key_id == key_id
    session.execute(update(WebhookSecret).where(mine, WebhookSecret.expires_at.is_(None)).values(expires_at=until))
    spared = [secret.number for secret in alive[: MOST_ALIVE - 1]]
    session.execute(delete(WebhookSecret).where(mine, WebhookSecret.number.not_in(spared)))
    text = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
    made = WebhookSecret(key_id=key_id, number=alive[0].number + 1 if alive else 1, secret=text)
    session.add(made)
    session.flush()
    return Rotated(made, until if alive else None)


def current(session: Session, key_id: str) -> Sequence[WebhookSecret]:
    """The secrets that sign a key's messages now, the newest first."""
    alive = or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > now())
    query = select(WebhookSecret).where(WebhookSecret.key_id == key_id, alive)
    return session.scalars(query.order_by(WebhookSecret.number.desc())).all()


def signing(session: Session, key_id: str) -> list[str]:
    """The secrets to sign with, the newest first; a key without one gets its first, which nobody has seen."""
    alive = current(session, key_id)
    if not alive:
        _lock(session, key_id)
        alive = current(session, key_id) or [rotate(session, key_id).record]
    return [secret.secret for secret in alive]


def _lock(session: Session, key_id: str) -> None:
    session.execute(select(Key.id).where(Key.id == key_id).with_for_update())
