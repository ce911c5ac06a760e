"""The order of waiting work, used for claims, wake-up messages and queue positions.

The rows must be due, fit the worker, and belong to a key below its limit of running jobs. They are ordered by:

1. highest priority;
2. then the key with the fewest running;
3. then the key whose work was claimed the longest ago (never claimed comes first);
4. then the oldest row.

The cost does not depend on the number of rows of a key: for every key and kind of needs only the first row is read, by a
loose index scan.
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
FIRST_BATCH, LARGEST_BATCH = 8, 128
"""Rows of a key that are read at once after its first one; every further batch is twice as large, up to the largest."""


class Turn(NamedTuple):
    """A waiting row."""

    id: str
    key_id: str
    needs: str
    rank: int


def turns(
    session: Session, line: Line, fits: Callable[[ResourceNeeds], bool] = lambda needs: True, *more: ColumnElement[bool]
) -> Iterator[Turn]:
    """The rows in the order in which they would be claimed if no running work ended meanwhile.

    Args:
        fits: whether a worker can take work with these needs.
        more: further conditions on the rows.
    """
    heads = _heads(session, line, [text for text in _needs(session, line) if fits(ResourceNeeds.read(text))], more)
    keys = {head.key_id for head in heads}
    running, most = _running(session, line), _most_running(session, line, keys)
    served: dict[str, Served] = dict.fromkeys(keys, (-1, 0.0)) | _served(session, line, keys)
    followers: dict[tuple[str, str], Iterator[Turn]] = {}
    heap = [(_rank(head, running, served), head) for head in heads]
    heapq.heapify(heap)
    count = 0
    while heap:
        rank, turn = heapq.heappop(heap)
        if running[turn.key_id] >= most.get(turn.key_id, running[turn.key_id] + 1):
            continue
        if rank != (current := _rank(turn, running, served)):  # work of its key was yielded since
            heapq.heappush(heap, (current, turn))
            continue
        yield turn
        count += 1
        running[turn.key_id] += 1
        served[turn.key_id] = (1, count)
        group = (turn.needs, turn.key_id)
        rest = followers.setdefault(group, _followers(session, line, turn, more))
        if (following := next(rest, None)) is not None:
            heapq.heappush(heap, (_rank(following, running, served), following))


def serve(session: Session, line: Line, key_id: str) -> None:
    """Record that work of a key was claimed. Only claims write these rows, and claims are serialised."""
    share = session.get(Share, (key_id, line.__tablename__))
    at = session.scalars(select(now())).one()
    if share is None:
        session.add(Share(key_id=key_id, line=line.__tablename__, served_at=at))
    else:
        share.served_at = at


def due(line: Line) -> tuple[ColumnElement[bool], ...]:
    """SQL conditions of claimable rows, those of the index first."""
    if line is Inspection:
        return (*_waiting(line), line.due_at <= now())
    return (*_waiting(line), line.due_at <= now(), Job.cancel_requested_at.is_(None), Job.deleted_at.is_(None))


def _waiting(line: Line) -> tuple[ColumnElement[bool], ...]:
    queued = line.status == "queued"
    return (queued,) if line is Inspection else (queued, and_(Job.ready))


def _rank(turn: Turn, running: Counter[str], served: dict[str, Served]) -> tuple[Any, ...]:
    return turn.rank, running[turn.key_id], served[turn.key_id], turn.id


def _needs(session: Session, line: Line) -> Sequence[str]:
    """The distinct needs of waiting rows, found by a loose index scan."""
    waiting = _waiting(line)
    first = _first(line.needs, *waiting).scalar_subquery()
    found = select(first.label("needs")).cte("found", recursive=True)
    following = _first(line.needs, *waiting, line.needs > found.c.needs).correlate(found).scalar_subquery()
    found = found.union_all(select(following).where(found.c.needs.is_not(None)))
    return session.scalars(select(found.c.needs).where(found.c.needs.is_not(None))).all()


def _heads(session: Session, line: Line, needs: Sequence[str], more: Sequence[ColumnElement[bool]]) -> list[Turn]:
    """The first due row of every key and kind of needs."""
    heads: list[Turn] = []
    for text in needs:
        waiting = (*_waiting(line), line.needs == text)
        first = _first(line.key_id, *waiting).scalar_subquery()
        keys = select(first.label("key_id")).cte("waiting_keys", recursive=True)
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


def _followers(session: Session, line: Line, head: Turn, more: Sequence[ColumnElement[bool]]) -> Iterator[Turn]:
    """The due rows after a first row, with the same key and needs, read lazily."""
    mine = (*due(line), line.needs == head.needs, line.key_id == head.key_id, *more)
    skipped, batch = 1, FIRST_BATCH
    while True:
        query = _best(line.id, line, *mine).add_columns(line.key_id, line.needs, line.rank)
        found = session.execute(query.offset(skipped).limit(batch)).all()
        yield from (Turn(*row) for row in found)
        if len(found) < batch:
            return
        skipped += batch
        batch = min(2 * batch, LARGEST_BATCH)


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
