"""The folder of one attempt, and removing folders whose owner has died.

Next to each folder is a lock file. Its owner holds the lock while it lives; the kernel releases the lock when the owner
dies.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import structlog

from models.settings import settings

LOCK = ".lock"
log = structlog.get_logger(__name__)


def work_folder() -> Path:
    """The parent of all attempts' folders on this host."""
    return settings().work_folder.absolute()


class Folder:
    """The folder of an attempt, `NAME/ATTEMPT`; empty at first, removed at the end."""

    def __init__(self, name: str, attempt: int):
        self.path = work_folder() / name / str(attempt)
        self._lock = self.path.with_name(f"{attempt}{LOCK}")
        self._descriptor = -1

    def __enter__(self) -> "Folder":
        self._descriptor = _take(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)
        for name in ("inputs", "checkpoints", "previews", "output", "tmp", "pending"):
            (self.path / name).mkdir(parents=True, mode=0o700)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _remove(self.path, self._lock)
        os.close(self._descriptor)

    def inside(self, name: str) -> Path:
        """The path of a file that the engine names, which must be a regular file inside the folder.

        Raises:
            ValueError: it is not.
        """
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()) or not path.is_file():
            raise ValueError(f"the engine names {name!r}, which is not a file in its folder")
        return path


def _take(lock: Path) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):
            if lock.parent.is_file():
                raise
            continue  # a sweep has just removed the empty parent folder
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # a sweep has removed the lock file first


def _remove(folder: Path, lock: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        log.warning("folder_not_removed", folder=str(folder))
        return False
    lock.unlink(missing_ok=True)
    try:
        folder.parent.rmdir()
    except OSError:
        return True  # it contains folders of other attempts
    return True


def _locks() -> Iterator[Path]:
    """The lock files of all attempts' folders. Other processes remove folders meanwhile."""
    for folder in work_folder().glob("*"):
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from list(folder.glob(f"*{LOCK}"))


def sweep_folders() -> int:
    """Remove the folders of attempts whose owner has died; returns their number."""
    removed = 0
    for lock in _locks():
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += _remove(lock.with_name(lock.name.removesuffix(LOCK)), lock)
        except BlockingIOError:
            continue  # its owner is alive
        finally:
            os.close(descriptor)
    return removed
