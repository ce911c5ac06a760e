"""Disks that a campaign may fill: each a tmpfs of its own, where this process may mount one."""

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

BALLAST = "ballast"
SIZE = "768m"
STEP = 2**20


@lru_cache(maxsize=1)
def can_mount() -> bool:
    """Whether a tmpfs can be mounted here: on Linux, as root, outside a container that forbids it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        try:
            disk.mount()
        except (OSError, subprocess.CalledProcessError):
            return False
        disk.unmount()
    return True


class Disk:
    """A file system in memory, mounted on a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def mount(self) -> None:
        """Mount it; the folder is made if it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "distillery-chaos", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self) -> None:
        """Unmount it, even if a process that ends has files open in it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)

    def fill(self) -> int:
        """Take all space that is left; returns how many bytes."""
        path = self.folder / BALLAST
        with path.open("ab", buffering=0) as file:
            for size in (STEP, 4096, 1):
                block = bytes(size)
                with suppress(OSError):
                    while True:
                        if file.write(block) < size:
                            raise OSError(errno.ENOSPC, "the disk is full")
            return file.tell()

    def free(self) -> None:
        """Give the space back."""
        (self.folder / BALLAST).unlink(missing_ok=True)
