"""A disk that is filled refuses writes until it is freed."""

import errno
from pathlib import Path

import pytest

from tests.chaos.disks import Disk, can_mount


@pytest.mark.skipif(not can_mount(), reason="needs Linux and the right to mount a tmpfs")
def test_a_full_disk_refuses_and_a_freed_one_takes(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.mount()
    try:
        assert disk.fill() > 2**20
        with pytest.raises(OSError) as caught:
            (disk.folder / "file").write_bytes(bytes(8192))
        assert caught.value.errno == errno.ENOSPC
        disk.free()
        (disk.folder / "file").write_bytes(bytes(8192))
    finally:
        disk.unmount()
    assert not (disk.folder / "file").exists()
