"""Datasets on the worker's disk, fetched once and read in place by every job that names them.

A dataset is named by the SHA-256 of its first file. Whoever uses it holds a lock on it, which the kernel counts and releases
if the owner dies. If there is no room, the dataset that was used least recently goes first; one that is used never goes.
"""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from models.settings import settings
from worker.cache.entry import Entry, entries
from worker.cache.file_locks import locked, take
from worker.engine.machine import free_bytes

FETCHES_AT_ONCE = 4
FULL = (errno.ENOSPC, errno.EDQUOT)

Download = Callable[[str, Path, str], Any]
"""Writes the blob of a key to a file, which appears only if it has the given SHA-256."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CachedFile:
    """A file of a dataset: its name in the dataset's folder, and its blob."""

    name: str
    key: str
    sha256: str
    size: int


class HeldDatasets:
    """The datasets that one attempt uses; at its end they may be removed again."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def __enter__(self) -> "HeldDatasets":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    @property
    def folders(self) -> list[Path]:
        """The folders that the engine reads."""
        return list(self._held)

    def hold(self, files: Sequence[CachedFile], download: Download, check: Callable[[], None]) -> Path | None:
        """The folder with these files, of which the first names the dataset; what is missing is fetched.

        Args:
            check: called while another process fetches the dataset; may raise.

        Returns:
            None if the cache is off, or if there is no room for the dataset.
        """
        if not settings().cache_bytes:
            return None
        entry = Entry(cache_folder(), files[0].sha256)
        if entry.files in self._held:
            return entry.files
        with locked(entry.fetch_lock, check):
            if not _complete(entry, files, download):
                return None
            descriptor = take(entry.use_lock, shared=True)
            assert descriptor is not None  # only the holder of the lock for fetching takes it exclusively
            entry.touch()
        self._held[entry.files] = descriptor
        return entry.files


def cache_folder() -> Path:
    """The folder of the cache on this machine."""
    return settings().cache_folder.absolute()


def _complete(entry: Entry, files: Sequence[CachedFile], download: Download) -> bool:
    """Fetch the files that are missing; false if there is no room."""
    entry.files.mkdir(parents=True, exist_ok=True)
    entry.discard_partial()
    missing = [file for file in files if not entry.is_sound(file.name, file.sha256)]
    if not missing:
        return True
    if not _make_room(entry, sum(file.size for file in files), sum(file.size for file in missing)):
        entry.remove_locked()
        log.warning("dataset_not_cached", reason="no room", size=sum(file.size for file in files))
        return False
    try:
        with ThreadPoolExecutor(min(FETCHES_AT_ONCE, len(missing)), thread_name_prefix="fetch") as threads:
            list(threads.map(lambda file: download(file.key, entry.files / file.name, file.sha256), missing))
    except OSError as error:
        if error.errno in FULL:
            entry.remove_locked()  # it would keep this worker from claiming anything
        raise
    for file in missing:
        entry.verify(file.name)
    log.info("dataset_cached", files=len(missing), size=sum(file.size for file in missing))
    return True


def _make_room(entry: Entry, whole: int, missing: int) -> bool:
    """Remove datasets until there is room for this one, and reserve it; false if the rest is in use."""
    config = settings()
    if whole > config.cache_bytes:
        return False
    with locked(cache_folder() / "locks" / "room"):
        others = [each for each in entries(cache_folder()) if each.name != entry.name]
        others.sort(key=Entry.used_at)
        sizes = {each.name: each.size() for each in others}
        while sum(sizes.values()) + whole > config.cache_bytes or _free() < missing + config.free_bytes:
            if not _remove_first(others, sizes):
                return False
        entry.reserve(whole)
    return True


def _free() -> int:
    return free_bytes(cache_folder())


def _remove_first(others: list[Entry], sizes: dict[str, int]) -> bool:
    """Remove the first entry that is not used; false if all are."""
    while others:
        first = others.pop(0)
        if first.remove():
            size = sizes.pop(first.name)
            log.info("dataset_removed_from_cache", name=first.name, size=size)
            return True
    return False


def trim() -> int:
    """Remove unused datasets while the disk has too little space for this worker to claim work, or while there are more than
    the settings allow; returns their number."""
    config = settings()
    removed = 0
    if not cache_folder().exists():
        return 0
    with locked(cache_folder() / "locks" / "room"):
        others = sorted(entries(cache_folder()), key=Entry.used_at)
        sizes = {each.name: each.size() for each in others}
        while sum(sizes.values()) > config.cache_bytes or (others and _free() < config.free_bytes):
            if not _remove_first(others, sizes):
                break
            removed += 1
    return removed
