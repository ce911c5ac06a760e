"""A folder that is read like an archive: of a dataset by reference, whose files are not sent. Links are not followed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits


class FolderArchive(Archive):
    """The regular files of a folder, at any depth."""

    def __init__(self, folder: Path, limits: UploadLimits):
        super().__init__(limits)
        self._folder = folder
        for found in _files(folder):
            self.count_entry()
            path = found.relative_to(folder)
            self.add(path.as_posix(), found.stat().st_size, is_folder=False)
        self.check_total()

    def head(self, path: PurePosixPath, count: int) -> bytes:
        try:
            with (self._folder / path).open("rb") as file:
                return file.read(count)
        except OSError:
            return b""

    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        try:
            with (self._folder / path).open("rb") as file:
                data = bytearray(file.read(most + 1))
        except OSError as error:
            raise UploadError(f"{str(path)[:120]!r} cannot be read: {error.strerror}", "Check the folder.") from error
        self.count_bytes(path, len(data), len(data), most)
        return data


@contextmanager
def open_folder(folder: Path, limits: UploadLimits) -> Iterator[FolderArchive]:
    """A folder with checked files.

    Raises:
        UploadError: there are too many files, or they are too large.
    """
    yield FolderArchive(folder, limits)


def only_file(folder: Path) -> Path | None:
    """The file of a folder that has no other, such as one archive; None if there are more."""
    found = [path for path, _ in zip(_files(folder), range(2), strict=False)]
    return found[0] if len(found) == 1 else None


def _files(folder: Path) -> Iterator[Path]:
    """Regular files, in the order of their paths."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path
