"""Requests with an `Idempotency-Key`: the same request again gets the same job, also while the first is being handled."""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, select, tuple_
from sqlalchemy.orm import Session

from api.http.errors import InFlight, Invalid
from api.jobs.service import find
from models.database import now
from models.idempotency import KEPT_SECONDS
from models.records import Idempotency, Job


@dataclass(frozen=True)
class IdempotentRequest:
    """The `Idempotency-Key` of a request and the fingerprint of its body."""

    key: str
    fingerprint: str


def idempotent_request(key: str | None, body: Any) -> IdempotentRequest | None:
    """The key and fingerprint of a request; None without an `Idempotency-Key`."""
    if key is None:
        return None
    return IdempotentRequest(key, hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest())


def earlier_job(session: Session, key_id: str, request: IdempotentRequest) -> Job | None:
    """The job of an earlier request with the same `Idempotency-Key`; None if there is none.

    Raises:
        Invalid: the key was used with another body.
    """
    named = Idempotency.key_id == key_id, Idempotency.idempotency_key == request.key
    session.execute(delete(Idempotency).where(*named, ~not_expired()))
    row = session.scalar(select(Idempotency).where(*named))
    if row is None:
        return None
    if row.fingerprint != request.fingerprint:
        raise reused()
    return find(session, key_id, row.job_id)


def reused() -> Invalid:
    """The error that a key was used with another body."""
    return Invalid([("Idempotency-Key", "was already used with another body: choose a new one")])


def same_keys(pairs: Iterable[tuple[str, str]]) -> ColumnElement[bool]:
    """Whether a row is of one of these pairs of an API key and an `Idempotency-Key`."""
    return tuple_(Idempotency.key_id, Idempotency.idempotency_key).in_(list(pairs))


def not_expired() -> ColumnElement[bool]:
    """Whether a row is not too old to count."""
    return Idempotency.created_at > now() - KEPT_SECONDS


_in_flight: set[tuple[str, str]] = set()
_in_flight_lock = threading.Lock()


@contextmanager
def in_flight_guard(key_id: str, idempotent: IdempotentRequest | None) -> Iterator[None]:
    """A context in which no other request with the same `Idempotency-Key` is handled.

    Raises:
        InFlight: another one is being handled.
    """
    # guards this process only; between processes the primary key of the idempotency row decides
    if idempotent is None:
        yield
        return
    mine = (key_id, idempotent.key)
    with _in_flight_lock:
        if mine in _in_flight:
            detail = "Another request with this Idempotency-Key is in progress. Try again in a second."
            raise InFlight(detail, headers={"Retry-After": "1"})
        _in_flight.add(mine)
    try:
        yield
    finally:
        with _in_flight_lock:
            _in_flight.remove(mine)
