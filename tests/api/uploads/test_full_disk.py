"""A full disk is a different error than an unavailable storage, and leaves no partial files."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from models.settings import Settings
from models.storage.errors import Full
from models.storage.opening import open_storage
from tests.api.service import TEACHER, problem, running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    with mounted(tmp_path / "disk", 1) as folder:
        yield folder


@contextmanager
def mounted(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A small file system; without root, the test is skipped."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_507_and_leaves_no_files(small_disk: Path, tmp_path: Path) -> None:
    with running(tmp_path, storage_url=small_disk.as_uri()) as service, service.user() as user:
        record = user.http.post("/teachers", json=TEACHER).json()
        response = user.http.put(record["upload"], content=bytes(3 << 20))
        assert "operator" in problem(response, 507, "insufficient-storage")["detail"]
        assert [path for path in small_disk.rglob("*") if path.is_file()] == []
        assert user.http.put(record["upload"], content=bytes(1 << 18)).status_code == 202  # a smaller upload fits


def test_a_full_folder_raises_full(small_disk: Path) -> None:
    storage = open_storage(Settings(storage_url=small_disk.as_uri()))
    with pytest.raises(Full):
        storage.put("jobs/a/1/large", bytes(2 << 20))
    assert storage.put("jobs/a/1/small", b"1").size == 1


def fill(folder: Path) -> Path:
    """A file that takes all free space of a disk."""
    path = folder / "everything"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def test_reading_goes_on_if_the_disk_of_the_database_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 80) as disk:
        settings = {"database_url": f"sqlite:///{disk / 'test.db'}", "storage_url": (disk / "blobs").as_uri()}
        with running(tmp_path, **settings) as service, service.user() as user, service.user() as fresh:
            record = user.http.post("/teachers", json=TEACHER).json()
            assert httpx.get(f"{service.url}/health/ready", trust_env=False).status_code == 200
            filled = fill(disk)
            for path in ("/jobs", "/teachers", "/keys/me", "/catalogue"):
                assert fresh.http.get(path).status_code == 200, path  # the first use of this key cannot be written
            for _ in range(2):
                problem(user.http.post("/teachers", json=TEACHER), 507, "insufficient-storage")
                problem(user.http.patch(f"/teachers/{record['id']}", json={"name": "x"}), 507, "insufficient-storage")
                problem(user.http.delete(f"/teachers/{record['id']}"), 507, "insufficient-storage")
            problem(user.http.put(record["upload"], content=bytes(2**20)), 507, "insufficient-storage")
            ready = problem(httpx.get(f"{service.url}/health/ready", trust_env=False), 503, "unavailable")
            assert ready["checks"] == {"database": "is full", "storage": "is full", "broker": "ok"}
            assert "The database is full." in ready["detail"]
            assert httpx.get(f"{service.url}/health/live", trust_env=False).status_code == 200
            filled.unlink()
            assert user.http.put(record["upload"], content=bytes(2**20)).status_code == 202
            assert user.http.post("/teachers", json=TEACHER).status_code == 201
