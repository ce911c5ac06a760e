"""Pages of a list, newest first, by an opaque cursor over the key of the last row (never an offset)."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import Field
from sqlalchemy import ColumnElement, Select, exists, func
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.http.bodies import Shown
from api.http.errors import BadCursor, Invalid
from models.database import Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)
LABEL_NAME = re.compile(r"[^:\0]{1,63}")
MOST = 200
"""Largest page."""


class Page(Shown, Generic[T]):
    """Some of a list, newest first."""

    data: list[T] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


@dataclass(frozen=True)
class Window:
    """Which page is asked for, and of which rows."""

    limit: int
    cursor: str | None
    labels: tuple[tuple[str, str], ...] = ()
    created_after: float | None = None
    created_before: float | None = None

    def page(
        self,
        session: Session,
        query: Select[R],
        id_of: InstrumentedAttribute[str],
        show: Callable[[R], T],
    ) -> Page[T]:
        """The page of a query that this window shows."""
        if self.cursor is not None:
            query = query.where(id_of < decode(self.cursor))
        rows = session.scalars(query.order_by(id_of.desc()).limit(self.limit + 1)).all()
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        cursor = encode(getattr(shown[-1], id_of.key)) if more else None
        return Page(data=[show(row) for row in shown], next_cursor=cursor)

    def within(self, created_at: InstrumentedAttribute[float]) -> list[ColumnElement[bool]]:
        """The conditions that rows were created in the time asked for."""
        after = [] if self.created_after is None else [created_at >= self.created_after]
        return after + ([] if self.created_before is None else [created_at < self.created_before])

    def labelled(self, session: Session, labels: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
        """The conditions that rows carry the labels asked for."""
        each = func.jsonb_each_text if session.get_bind().dialect.name == "postgresql" else func.json_each
        conditions: list[ColumnElement[bool]] = []
        for name, value in self.labels:
            pair = each(labels).table_valued("key", "value")
            conditions.append(exists().where(pair.c.key == name, pair.c.value == value))
        return conditions


def encode(last: str) -> str:
    """The cursor after a row."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode_text(cursor: str) -> str:
    """What `encode` was given.

    Raises:
        BadCursor: it was not made by `encode`.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadCursor("Send a cursor as 'next_cursor' gave it, or none.") from error


def decode(cursor: str) -> str:
    """The id of the row that a cursor was made after.

    Raises:
        BadCursor: it is not one of ours.
    """
    last = decode_text(cursor)
    if not re.fullmatch(r"[a-z]+_[0-9a-f]{1,40}", last):
        raise BadCursor("Send a cursor as 'next_cursor' gave it, or none.")
    return last


def parse_labels(given: list[str]) -> tuple[tuple[str, str], ...]:
    """`name:value` texts as pairs.

    Raises:
        Invalid: one is not of that form.
    """
    pairs = [text.partition(":") for text in given]
    if not all(LABEL_NAME.fullmatch(name) and colon and "\0" not in value for name, colon, value in pairs):
        raise Invalid([("label", "must be of the form name:value")])
    return tuple((name, value) for name, _, value in pairs)
