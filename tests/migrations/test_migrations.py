"""The migrations match the records, up and down, on both databases."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

import models.records  # noqa: F401 - registers every table
from api.access.scopes import SCOPES
from models import migrate
from models.database import Record, engine, transaction
from models.records import Event, Job, Key

ROOT = Path(__file__).parents[2]


def drift() -> list[Any]:
    with engine().connect() as connection:
        options = {"compare_type": True, "render_as_batch": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Record.metadata))


def tables() -> set[str]:
    return set(inspect(engine()).get_table_names()) - {"alembic_version"}


def test_up_and_down_and_up_again(database_url: str) -> None:
    migrate.upgrade()
    assert tables() == set(Record.metadata.tables)
    assert drift() == []
    migrate.downgrade()
    assert tables() == set()
    migrate.upgrade()
    assert tables() == set(Record.metadata.tables)
    assert drift() == []


def test_a_key_may_do_no_more_after_a_downgrade_and_an_upgrade(database_url: str) -> None:
    keys = {
        "key_reader": (["jobs:read"], {"queued_jobs": 7}),
        "key_nothing": ([], None),
        "key_admin": (["admin", "jobs:read"], None),
    }
    migrate.upgrade()
    with transaction() as session:
        for number, (name, (scopes, limits)) in enumerate(keys.items()):
            session.add(Key(id=name, name=name, hash=f"{number:064}", scopes=scopes, limits=limits))
    for _ in range(2):
        migrate.downgrade("0001")
        with transaction() as session:  # a key of the first version, which knew no scopes
            session.execute(text("DELETE FROM keys WHERE id = 'key_old'"))
            values = {"name": "old", "hash": "f" * 64, "created_at": 0.0}
            session.execute(
                text(
                    "INSERT INTO keys (id, name, hash, scopes, created_at) VALUES ('key_old', :name, :hash, '[]', :created_at)"
                ),
                values,
            )
        migrate.upgrade()
        with transaction() as session:
            found = {key.id: (key.scopes, key.limits) for key in session.scalars(select(Key))}
        assert found == keys | {"key_old": (list(SCOPES), None)}


def test_a_missing_column_is_drift(database_url: str) -> None:
    migrate.upgrade()
    with transaction() as session:
        session.execute(text("ALTER TABLE workers DROP COLUMN busy_with"))
    assert [entry[0] for entry in drift()] == ["add_column"]


def test_is_current_compares_the_schema_with_the_code(database_url: str) -> None:
    assert not migrate.is_current()
    migrate.upgrade()
    assert migrate.is_current()


def test_an_upgrade_of_a_current_database_changes_nothing(migrated: str) -> None:
    with transaction() as session:
        session.add(Key(id="key_1", name="one", hash="0" * 64))
        session.flush()
        session.add(Job(id="job_1", key_id="key_1", name="job", spec={}, resolved={}))
        session.flush()
        session.add(Event(job_id="job_1", seq=1, attempt=0, type="status", message="queued"))
    migrate.upgrade()
    with transaction() as session:
        assert session.get(Event, ("job_1", 1)) is not None


@pytest.mark.slow
def test_several_processes_can_migrate_concurrently(database_url: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "models.migrate"]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    stderr = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], stderr
    assert migrate.is_current()
    assert drift() == []


def test_foreign_keys_are_enforced_after_a_migration(database_url: str) -> None:
    migrate.upgrade()
    with pytest.raises(IntegrityError), transaction() as session:
        session.add(Event(job_id="job_missing", seq=1, attempt=0, type="status", message="queued"))


def test_the_alembic_command_migrates(configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(database_url=f"sqlite:///{tmp_path / 'a folder with 100%' / 'x.db'}")
    command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True)
    assert migrate.is_current()
