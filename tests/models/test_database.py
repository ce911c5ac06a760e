"""The clock and the transactions are those of the database, on SQLite and on Postgres."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError

from models.database import HALF_OPEN, engine, make_engine, now, reading, transaction
from models.records import Job, Key
from models.records.columns import new_id
from models.settings import settings

ROOT = Path(__file__).parents[2]


def make_key(**values: Any) -> Key:
    return Key(**{"id": new_id("key"), "name": "a key", "hash": new_id("")[-32:] * 2} | values)


def test_now_is_the_time_of_day_in_seconds(migrated: str) -> None:
    with reading() as session:
        told = session.scalar(select(now()))
    assert isinstance(told, float)
    assert abs(told - time.time()) < 60  # one machine: its clocks agree


def test_now_moves_within_a_transaction(migrated: str) -> None:
    with transaction() as session:
        first = session.scalar(select(now()))
        time.sleep(0.02)
        second = session.scalar(select(now()))
    assert first is not None and second is not None
    assert 0.01 < second - first < 30


def test_now_can_be_reckoned_with_in_a_statement(migrated: str) -> None:
    with transaction() as session:
        session.add(key := make_key())
        session.flush()
        session.execute(update(Key).values(expires_at=now() + 60.0))
        session.refresh(key)
        assert key.expires_at is not None
        assert session.scalar(select(Key.id).where(Key.expires_at > now())) == key.id
        assert session.scalar(select(Key.id).where(Key.expires_at < now())) is None
        assert 59 < key.expires_at - key.created_at < 90


def test_rows_get_their_times_from_the_database(migrated: str) -> None:
    with transaction() as session:
        session.add(key := make_key())
        session.flush()
        session.add(job := Job(id=new_id("job"), key_id=key.id, name="x", spec={"a": [1, None]}, resolved={}))
        session.flush()
        told = session.scalar(select(now()))
        assert told is not None
        assert 0 <= told - job.created_at < 30
        assert 0 <= told - job.due_at < 30
    with reading() as session:
        kept = session.get_one(Job, job.id)
        assert (kept.spec, kept.status, kept.ready, kept.attempt, kept.error) == (
            {"a": [1, None]},
            "queued",
            False,
            0,
            None,
        )


def test_a_block_that_raises_leaves_nothing(migrated: str) -> None:
    with pytest.raises(ZeroDivisionError), transaction() as session:
        session.add(make_key())
        session.flush()
        raise ZeroDivisionError
    with reading() as session:
        assert session.scalars(select(Key)).all() == []


def test_references_are_enforced(migrated: str) -> None:
    with pytest.raises(IntegrityError), transaction() as session:
        session.add(Job(id="job_1", key_id="key_missing", name="x", spec={}, resolved={}))


def test_sqlite_is_durable_and_waits(migrated_sqlite: str) -> None:
    with engine().connect() as connection:
        told = {
            name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert told == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_reader_waits_for_no_writer(migrated: str) -> None:
    with transaction() as writer:
        writer.add(make_key())
        writer.flush()
        begin = time.monotonic()
        with reading() as session:
            assert session.scalars(select(Key)).all() == []
        assert time.monotonic() - begin < 5


def count_up(url: str, seconds: float) -> int:
    """Read, think, write; as often as time allows."""
    mine, done, give_up = make_engine(url), 0, time.monotonic() + seconds
    while time.monotonic() < give_up or not done:
        with mine.begin() as connection:
            found = connection.scalar(text("SELECT name FROM keys WHERE id = 'counter'"))
            connection.execute(text("UPDATE keys SET name = :name WHERE id = 'counter'"), {"name": str(int(found) + 1)})
        done += 1
    mine.dispose()
    return done


def test_processes_that_read_and_then_write_lose_nothing(migrated_sqlite: str) -> None:
    with transaction() as session:
        session.add(make_key(id="counter", name="0"))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        done = pool.starmap(count_up, [(migrated_sqlite, 1.0)] * 4)  # raises what a process raised
    with reading() as session:
        assert int(session.get_one(Key, "counter").name) == sum(done)
    assert min(done) > 0


def test_a_folder_is_made_for_the_embedded_database(configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(data=tmp_path / "new" / "folder")
    with engine().connect():
        assert (tmp_path / "new" / "folder" / "distillery.db").exists()


def test_ids_sort_by_time() -> None:
    ids = [new_id("job") for _ in range(1000)]
    assert sorted(ids) == ids
    assert len(set(ids)) == 1000
    assert all(len(one) == len("job_") + 32 for one in ids)


@pytest.mark.parametrize(
    "module",
    ["models.spec.job_spec", "models.queue.wake_up", "models.storage.opening", "models.records", "models.migrate"],
)
def test_models_never_import_torch(module: str) -> None:
    heavy = "{'torch', 'torchvision', 'timm', 'numpy', 'safetensors', 'fastapi'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"


def test_a_postgres_that_vanishes_is_given_up_in_seconds(configure: Callable[..., Any], postgres_url: str) -> None:
    configure(database_url=postgres_url)
    with engine().connect() as connection:
        told = connection.connection.driver_connection.info.get_parameters()
    assert {name: int(told[name]) for name in HALF_OPEN} == HALF_OPEN
    assert HALF_OPEN["tcp_user_timeout"] / 1000 < settings().lease_seconds / 2


def test_only_the_owner_can_read_an_sqlite_database(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "private.db"
    for before in (None, 0o644):
        if before:
            path.chmod(before)
        engine = make_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))
            connection.commit()
            files = list(path.parent.iterdir())
            assert {file.name for file in files} == {"private.db", "private.db-wal", "private.db-shm"}
            assert [file.name for file in files if file.stat().st_mode & 0o007] == []
        engine.dispose()
