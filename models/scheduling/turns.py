"""Whose turn it is: the one order in which waiting work is claimed, woken up for, and shown.

Among the rows that are due, that fit, and whose key runs fewer than it may:

1. the highest priority;
2. of these, the key that has the fewest running;
3. of these, the key that was served the longest ago (never served goes first);
4. of these, the oldest.

A key with a million rows costs no more than one with a single row: of every key and kind of needs only the head is
read, by jumps in an index.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from models.database import now
from models.records import Inspection, Job, Key, Share
from models.scheduling.key_limits import limits_of
from models.scheduling.resources import ResourceNeeds

Line = type[Job] | type[Inspection]
Served = tuple[int, float]
C = TypeVar("C")
AHEAD, MOST_AHEAD = 8, 128
"""So many rows of a key are read at once after its head, then twice as many, up to so many."""


class Turn(NamedTuple):
    """A row that waits."""

    id: str
    key_id: str
    needs: str
    rank: int


def turns(
    session: Session, line: Line, fits: Callable[[ResourceNeeds], bool] = lambda needs: True, *more: ColumnElement[bool]
) -> Iterator[Turn]:
    """The rows that would be claimed one after the other if nothing ended meanwhile.

    Args:
        fits: whether a worker of those that are asked about could take work with such needs.
        more: further conditions on the rows.
    """
    heads = _heads(session, line, [text for text in _needs(session, line) if fits(ResourceNeeds.read(text))], more)
    keys = {head.key_id for head in heads}
    running, most = _running(session, line), _most_running(session, line, keys)
    served: dict[str, Served] = dict.fromkeys(keys, (-1, 0.0)) | _served(session, line, keys)
    behind: dict[tuple[str, str], Iterator[Turn]] = {}
    heap = [(_rank(head, running, served), head) for head in heads]
    heapq.heapify(heap)
    count = 0
    while heap:
        rank, turn = heapq.heappop(heap)
        if running[turn.key_id] >= most.get(turn.key_id, running[turn.key_id] + 1):
            continue
        if rank != (current := _rank(turn, running, served)):  # its key was served since
            heapq.heappush(heap, (current, turn))
            continue
        yield turn
        count += 1
        running[turn.key_id] += 1
        served[turn.key_id] = (1, count)
        group = (turn.needs, turn.key_id)
        rest = behind.setdefault(group, _behind(session, line, turn, more))
        if (following := next(rest, None)) is not None:
            heapq.heappush(heap, (_rank(following, running, served), following))


def serve(session: Session, line: Line, key_id: str) -> None:
    """Note that a key was served. Only claims write these rows, and they come one after the other."""
    share = session.get(Share, (key_id, line.__tablename__))
    at = session.scalars(select(now())).one()
    if share is None:
        session.add(Share(key_id=key_id, line=line.__tablename__, served_at=at))
    else:
        share.served_at = at


def due(line: Line) -> tuple[ColumnElement[bool], ...]:
    """The conditions that a row may be claimed, those of the index first."""
    if line is Inspection:
        return (*_waiting(line), line.due_at <= now())
    return (*_waiting(line), line.due_at <= now(), Job.cancel_requested_at.is_(None), Job.deleted_at.is_(None))


def _waiting(line: Line) -> tuple[ColumnElement[bool], ...]:
    queued = line.status == "queued"
    return (queued,) if line is Inspection else (queued, and_(Job.ready))


def _rank(turn: Turn, running: Counter[str], served: dict[str, Served]) -> tuple[Any, ...]:
    return turn.rank, running[turn.key_id], served[turn.key_id], turn.id


def _needs(session: Session, line: Line) -> Sequence[str]:
    """The kinds of needs among waiting rows, each found by a jump in the index."""
    waiting = _waiting(line)
    first = _first(line.needs, *waiting).scalar_subquery()
    found = select(first.label("needs")).cte("found", recursive=True)
    following = _first(line.needs, *waiting, line.needs > found.c.needs).correlate(found).scalar_subquery()
    found = found.union_all(select(following).where(found.c.needs.is_not(None)))
    return session.scalars(select(found.c.needs).where(found.c.needs.is_not(None))).all()


def _heads(session: Session, line: Line, needs: Sequence[str], more: Sequence[ColumnElement[bool]]) -> list[Turn]:
    """The best due row of every key and kind of needs."""
    heads: list[Turn] = []
    for text in needs:
        waiting = (*_waiting(line), line.needs == text)
        first = _first(line.key_id, *waiting).scalar_subquery()
        keys = select(first.label("key_id")).cte("keys_that_wait", recursive=True)
        following = _first(line.key_id, *waiting, line.key_id > keys.c.key_id).correlate(keys).scalar_subquery()
        keys = keys.union_all(select(following).where(keys.c.key_id.is_not(None)))
        mine = (*due(line), line.needs == text, line.key_id == keys.c.key_id, *more)
        best = _best(line.id, line, *mine).limit(1).correlate(keys).scalar_subquery()
        bests = select(best.label("id")).select_from(keys).subquery()
        query = select(line.id, line.key_id, line.needs, line.rank).join(bests, bests.c.id == line.id)
        heads += [Turn(*row) for row in session.execute(query)]
    return heads


def _best(column: Any, line: Line, *conditions: ColumnElement[bool]) -> Select[Any]:
    return select(column).where(*conditions).order_by(line.rank, line.id)


def _first(column: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    return select(column).where(*conditions).order_by(column).limit(1)


def _behind(session: Session, line: Line, head: Turn, more: Sequence[ColumnElement[bool]]) -> Iterator[Turn]:
    """The due rows after a head, of the same key and needs, read when they are asked for."""
    mine = (*due(line), line.needs == head.needs, line.key_id == head.key_id, *more)
    passed, ahead = 1, AHEAD
    while True:
        query = _best(line.id, line, *mine).add_columns(line.key_id, line.needs, line.rank)
        found = session.execute(query.offset(passed).limit(ahead)).all()
        yield from (Turn(*row) for row in found)
        if len(found) < ahead:
            return
        passed, ahead = passed + ahead, min(2 * ahead, MOST_AHEAD)


def _running(session: Session, line: Line) -> Counter[str]:
    query = select(line.key_id, func.count()).where(line.status == "running").group_by(line.key_id)
    return Counter({key_id: count for key_id, count in session.execute(query)})  # noqa: C416


def _served(session: Session, line: Line, keys: set[str]) -> dict[str, Served]:
    mine = and_(Share.line == line.__tablename__, Share.key_id.in_(keys))
    query = select(Share.key_id, Share.served_at).where(mine)
    return {key_id: (0, served_at) for key_id, served_at in session.execute(query)}


def _most_running(session: Session, line: Line, keys: set[str]) -> dict[str, int]:
    if line is Inspection:
        return {}
    query = select(Key.id, Key.limits).where(Key.id.in_(keys))
    return {key_id: limits_of(limits).running_jobs for key_id, limits in session.execute(query)}
