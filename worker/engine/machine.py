"""What this machine has: memory, and free space for the folders of attempts."""

import os
import shutil
from pathlib import Path

import structlog

from models.settings import settings
from worker.engine.folder import work_folder

log = structlog.get_logger(__name__)

CGROUP = Path("/sys/fs/cgroup")
CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Files with the limit of this container, by version of the kernel's control groups."""
VMSTAT = Path("/proc/vmstat")


def memory_bytes() -> int:
    """Memory of this machine, or of this container if it is limited."""
    return min([_physical_bytes(), *_container_limits()])


def is_limited() -> bool:
    """Whether this container has less memory than the machine."""
    return memory_bytes() < _physical_bytes()


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_limits() -> list[int]:
    found = []
    for name in CGROUP_LIMITS:
        try:
            text = (CGROUP / name).read_text().strip()
        except OSError:
            continue
        found += [int(text)] if text.isdecimal() else []
    return found


def kills_for_memory() -> int:
    """How many processes of this machine the kernel has killed because memory ran out; 0 if it does not say."""
    try:
        lines = VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def free_bytes(folder: Path | None = None) -> int:
    """Free space on the disk of a folder, by default that of the attempts' folders; 0 if the disk fails."""
    folder = folder or work_folder()
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free
    except OSError as error:
        log.error("disk_failed", folder=str(folder), error=str(error))
        return 0


def has_space() -> bool:
    """Whether the disk has enough free space to claim work; if not, an error is logged."""
    free, least = free_bytes(), settings().free_bytes
    if free >= least:
        return True
    message = f"the disk of {work_folder()} has {free} bytes free, fewer than {least}: this worker claims nothing"
    log.error("DISK_FULL", message=message, free_bytes=free)
    return False
