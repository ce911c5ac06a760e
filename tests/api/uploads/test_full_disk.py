"""A full disk is a different error than an unavailable storage, and leaves no partial files."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from models.storage.errors import Full
from models.storage.opening import open_storage
from tests.api.service import TEACHER, problem, running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs root")
    yield folder
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
