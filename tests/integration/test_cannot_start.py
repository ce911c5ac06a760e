"""A process that cannot start prints one sentence, without a traceback, and exits with code 2."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROCESSES = {
    "api": ("api",),
    "worker": ("worker", "--kind", "inspect"),
    "supervisor": ("worker.supervisor",),
    "migrate": ("models.migrate",),
    "keys": ("api.keys", "list"),
}


def start(process: str, **values: Any) -> str:
    """Start a process that must exit with code 2; returns the line that it prints."""
    environment = os.environ | {f"DISTILL_{name.upper()}": str(value) for name, value in values.items()}
    command = [sys.executable, "-m", *PROCESSES[process]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.endswith(".")
    return line


def _processes(quick: str, *slow: str) -> list[Any]:
    """Parameters of a test, the first of which `make test` runs, and `make test-slow` the others."""
    return [quick, *(pytest.param(each, marks=pytest.mark.slow) for each in slow)]


@pytest.mark.parametrize("process", _processes(*PROCESSES))
def test_a_setting_that_is_not_valid(process: str) -> None:
    assert "DISTILL_PORT" in start(process, port="eighty")


@pytest.mark.parametrize("process", _processes("migrate", "api", "supervisor"))
def test_a_file_that_is_no_database(process: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is not a database" * 1000)
    assert "file is not a database" in start(process, database_url=f"sqlite:///{broken}")


@pytest.mark.parametrize("process", _processes("worker", "api", "migrate"))
def test_a_schema_of_a_newer_version(process: str, migrated_sqlite: str) -> None:
    with sqlite3.connect(migrated_sqlite.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer version (9999)" in start(process, database_url=migrated_sqlite)


@pytest.mark.parametrize("process", _processes("supervisor", "api", "worker"))
def test_a_data_folder_that_cannot_be_used(process: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "file" in start(process, data=tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"storage_url": "ftp://somewhere"}, "DISTILL_STORAGE_URL"),
        ({"database_url": "nonsense"}, "DISTILL_DATABASE_URL"),
        ({"database_url": "oracle+nothing://x/y"}, "DISTILL_DATABASE_URL"),
        ({"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2"}, "DISTILL_DATABASE_URL"),
        ({"broker_url": "amqp://x"}, "redis://"),
        ({"beat_seconds": 50}, "lease_seconds"),
    ],
)
def test_other_settings_that_cannot_be_used(values: dict[str, Any], expected: str) -> None:
    assert expected in start("api", **values)


def test_a_port_that_is_taken(configure: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Port " in start("api", port=taken.getsockname()[1])
