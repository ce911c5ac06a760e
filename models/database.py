"""The database: one SQLAlchemy engine per process, sessions, and the clock of the database.

Times are seconds since 1970 in UTC, as doubles. They come from the database (`now()`), never from a host's clock.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Double, Engine, MetaData, ScalarSelect, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.expression import FunctionElement

from models.made_once import MadeOnce
from models.settings import settings

HALF_OPEN: dict[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Parameters of libpq that detect a dead server after some seconds instead of minutes."""
UNAVAILABLE = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""Exceptions if the database is unavailable or has closed an idle transaction. Any other exception is a bug."""


def is_full(error: BaseException) -> bool:
    """Whether the database refused a write because its disk is full."""
    cause = getattr(error, "orig", None)
    return (
        getattr(cause, "sqlite_errorname", None) in _SQLITE_FULL or getattr(cause, "sqlstate", None) == _POSTGRES_FULL
    )


_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""The second is reported if there is no room for the index of the write-ahead log."""
_POSTGRES_FULL = "53100"


class Record(DeclarativeBase):
    """A database row."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class now(FunctionElement[float]):  # noqa: N801 - a SQL function
    """The clock of the database, in seconds since 1970. It advances within a transaction."""

    type = Double()
    inherit_cache = True
    name = "now"


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') is NULL before SQLite 3.42
    return "((julianday('now') - 2440587.5) * 86400.0)"


def once_now() -> ScalarSelect[float]:
    """The clock of the database, read once per statement.

    Use this to compare with an indexed column: Postgres evaluates `now()`, which is volatile, for every row and so cannot
    use the index.
    """
    return select(now()).scalar_subquery()


def make_engine(url: str) -> Engine:
    """A SQLAlchemy engine for SQLite or Postgres, with the connection settings that each needs."""
    if make_url(url).get_backend_name() != "sqlite":
        # a quarter of a lease: limits how long a process that is suspended in a transaction holds its locks
        options = f"-c idle_in_transaction_session_timeout={round(settings().lease_seconds * 250)}"
        connect_args = HALF_OPEN | {"options": options}
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=connect_args)
    path = make_url(url).database
    if path and path != ":memory:" and not path.startswith("file:"):
        _keep_private(Path(path))
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def _keep_private(path: Path) -> None:
    """Create a database file that only its owner may read: it holds secrets. SQLite's other files get the same rights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    rights = stat.S_IMODE(path.stat().st_mode)
    if rights & 0o007:  # from an earlier version
        with suppress(PermissionError):  # another user's file: its owner narrows it
            path.chmod(rights & ~0o007)


def _configure_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # no implicit BEGIN from the driver: see `_begin`
    for pragma in ("journal_mode=WAL", "busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # a deferred transaction that upgrades from read to write fails at once if another connection writes
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@MadeOnce
def engine() -> Engine:
    """The SQLAlchemy engine of this process."""
    return make_engine(settings().database)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session that commits at the end of the block, or rolls back if the block raises."""
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A read-only session. On SQLite it does not wait for writers."""
    with Session(engine().execution_options(reading=True), expire_on_commit=False) as session, session.begin():
        yield session
