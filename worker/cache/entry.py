"""One dataset in the cache: its folder of files, what is known of them, and its two locks.

blobs/NAME/FILE       the files, which engines read
entries/NAME.json     the bytes reserved for it, and the verified files; its modification time is that of the last use
locks/NAME.fetch      held exclusively while files are fetched or removed
locks/NAME.use        held by everyone who reads the files
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.cache.file_locks import take


@dataclass(frozen=True)
class Entry:
    """The entry `name` of the cache in `folder`."""

    folder: Path
    name: str

    @property
    def files(self) -> Path:
        """The folder of its files."""
        return self.folder / "blobs" / self.name

    @property
    def fetch_lock(self) -> Path:
        return self.folder / "locks" / f"{self.name}.fetch"

    @property
    def use_lock(self) -> Path:
        return self.folder / "locks" / f"{self.name}.use"

    @property
    def _record(self) -> Path:
        return self.folder / "entries" / f"{self.name}.json"

    def size(self) -> int:
        """Bytes that it has or is going to have."""
        return int(self._read().get("size", 0))

    def reserve(self, size: int) -> None:
        """Count its bytes before they are fetched."""
        self._write(self._read() | {"size": size})

    def verify(self, file: str) -> None:
        """Record that a file has been compared with its SHA-256, and that nothing has changed it since."""
        path = self.files / file
        path.chmod(0o444)
        found = self._read()
        self._write(found | {"files": {**found.get("files", {}), file: _stamp(path)}})

    def is_sound(self, file: str, sha256: str) -> bool:
        """Whether a file is there and has this hash; one that may have changed since it was verified is read again, and
        removed if it is damaged."""
        path = self.files / file
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return False
        if self._read().get("files", {}).get(file) == stamp:
            return True
        with path.open("rb") as opened:
            sound = hashlib.file_digest(opened, "sha256").hexdigest() == sha256
        if sound:
            self.verify(file)
        else:
            path.unlink()  # whoever has mapped it keeps the old bytes
        return sound

    def touch(self) -> None:
        """Record that it is used now."""
        os.utime(self._record)

    def used_at(self) -> float:
        try:
            return self._record.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def discard_partial(self) -> None:
        """Remove what killed fetches have left; the caller holds the lock for fetching."""
        for path in self.files.glob(".*.part"):
            path.unlink(missing_ok=True)

    def remove(self) -> bool:
        """Remove it, unless it is used or fetched; returns whether it is gone."""
        if (fetching := take(self.fetch_lock)) is None:
            return False
        try:
            return self.remove_locked()
        finally:
            os.close(fetching)

    def remove_locked(self) -> bool:
        """`remove` for a caller that holds the lock for fetching."""
        if (using := take(self.use_lock)) is None:
            return False
        try:
            shutil.rmtree(self.files, ignore_errors=True)
            if self.files.exists():
                return False
            self._record.unlink(missing_ok=True)
            self.use_lock.unlink(missing_ok=True)
            self.fetch_lock.unlink(missing_ok=True)
            return True
        finally:
            os.close(using)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        partial = self._record.with_suffix(f".{os.urandom(4).hex()}")
        partial.write_text(json.dumps(content))
        partial.replace(self._record)


def entries(folder: Path) -> Iterator[Entry]:
    """All entries of a cache, also those of which a crash has left only files."""
    names = {path.stem for path in folder.glob("entries/*.json")} | {path.name for path in folder.glob("blobs/*")}
    yield from (Entry(folder, name) for name in sorted(names))


def _stamp(path: Path) -> list[int]:
    """What changes with every write to a file; only the kernel sets the time of its last change."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
