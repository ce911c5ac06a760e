"""Keyset pagination, newest first: an opaque cursor holds the id of the last row (no offsets)."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import Field, JsonValue
from sqlalchemy import ColumnElement, Row, Select, exists, func
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.http.bodies import ResponseBody
from api.http.errors import BadCursor, Invalid
from models.database import Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)
LABEL_NAME = re.compile(r"[^:\0]{1,63}")
CURSOR: dict[str, JsonValue] = {"pattern": "^[A-Za-z0-9_-]*$"}
"""For the schema of cursors: one of another form is a `BadCursor`, not an invalid value."""
LABEL: dict[str, JsonValue] = {"pattern": r"^[^:\u0000]{1,63}:[^\u0000]*$"}
"""For the schema of labels."""
BAD_CURSOR = "The cursor is not valid. Send the 'next_cursor' of the previous page, or no cursor."
MAX_LIMIT = 200
"""Largest page."""


class Page(ResponseBody, Generic[T]):
    """One page of a list."""

    data: list[T] = Field(description="Entries of this page, in the order that the operation states.")
    next_cursor: str | None = Field(description="Value of `cursor` for the next page; null on the last page.")


@dataclass(frozen=True)
class Window:
    """The requested page and filters of a list."""

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
        """The requested page of a query."""
        rows, cursor = self.rows(session, query, id_of)
        return Page(data=[show(row[0]) for row in rows], next_cursor=cursor)

    def rows(
        self, session: Session, query: Select[Any], id_of: InstrumentedAttribute[str]
    ) -> tuple[Sequence[Row[Any]], str | None]:
        """The rows of the requested page, and the cursor of the next one."""
        if self.cursor is not None:
            query = query.where(id_of < decode(self.cursor))
        found = session.execute(query.order_by(id_of.desc()).limit(self.limit + 1)).all()
        shown = found[: self.limit]
        last = shown[-1] if len(found) > self.limit else None
        if last is None:
            return shown, None
        return shown, encode(str(getattr(last, "id", None) or getattr(last[0], id_of.key)))

    def within(self, created_at: InstrumentedAttribute[float]) -> list[ColumnElement[bool]]:
        """SQL conditions for the requested range of creation times."""
        after = [] if self.created_after is None else [created_at >= self.created_after]
        return after + ([] if self.created_before is None else [created_at < self.created_before])

    def labelled(self, session: Session, labels: InstrumentedAttribute[Any]) -> list[ColumnElement[bool]]:
        """SQL conditions for the requested labels."""
        if session.get_bind().dialect.name == "postgresql":
            return [func.jsonb_extract_path_text(labels, name) == value for name, value in self.labels]
        conditions: list[ColumnElement[bool]] = []
        for name, value in self.labels:
            pair = func.json_each(labels).table_valued("key", "value")
            conditions.append(exists().where(pair.c.key == name, pair.c.value == value))
        return conditions


def encode(last: str) -> str:
    """The cursor that continues after a row."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode_text(cursor: str) -> str:
    """The text that `encode` was called with.

    Raises:
        BadCursor: the cursor does not come from `encode`.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadCursor(BAD_CURSOR) from error


def decode(cursor: str) -> str:
    """The row id that a cursor holds.

    Raises:
        BadCursor: the cursor does not hold an id.
    """
    last = decode_text(cursor)
    if not re.fullmatch(r"[a-z]+_[0-9a-f]{1,40}", last):
        raise BadCursor(BAD_CURSOR)
    return last


def parse_labels(given: list[str]) -> tuple[tuple[str, str], ...]:
    """Parse `name:value` texts into pairs.

    Raises:
        Invalid: a text has another form.
    """
    pairs = [text.partition(":") for text in given]
    if not all(LABEL_NAME.fullmatch(name) and colon and "\0" not in value for name, colon, value in pairs):
        raise Invalid([("label", "must have the form name:value")])
    return tuple((name, value) for name, _, value in pairs)
