"""Untrusted archives: every entry is checked before it is read, and bytes are counted while they are decompressed.

No entry is extracted to disk. Entries are read into memory one at a time, and their names are never used as paths.
"""

from abc import ABC, abstractmethod
from pathlib import PurePosixPath

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

MOST_FOLDERS = 64
"""Parts of the path of an entry."""
RATIO_MATTERS = 2**20
"""Uncompressed bytes up to which a compression ratio is not limited."""
CHUNK = 2**20
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class Archive(ABC):
    """The files of an archive, by path, with their sizes.

    `files` excludes folders, hidden files and the metadata files of macOS and Windows; `folders` includes the folders without files.
    What lies in a hidden folder, such as `.ipynb_checkpoints`, is in neither.
    """

    def __init__(self, limits: UploadLimits):
        self.limits = limits
        self.files: dict[PurePosixPath, int] = {}
        self.folders: set[PurePosixPath] = set()
        self._inflated = 0
        self._listed = 0

    def read(self, path: PurePosixPath, most: int | None = None) -> bytearray:
        """The bytes of a file, at most `most` (default: the limit for one entry).

        Raises:
            UploadError: the uncompressed file is larger than that or than its header states, or is damaged.
        """
        size = self.files[path]
        most = min(size, self.limits.entry_bytes if most is None else most)
        if size > most:
            raise UploadError(f"{str(path)[:120]!r} has {size} bytes; the maximum is {most}", "Send smaller files.")
        data = self._read(path, most)
        if len(data) != size:
            raise UploadError(f"{str(path)[:120]!r} is truncated in the archive", "Upload the archive again.")
        return data

    @abstractmethod
    def head(self, path: PurePosixPath, count: int) -> bytes:
        """The first `count` bytes of a file; nothing if it cannot be read."""

    @abstractmethod
    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        """At most `most` bytes of a file.

        Raises:
            UploadError: there are more, or they cannot be read.
        """

    def count_entry(self) -> None:
        """Count one more entry.

        Raises:
            UploadError: there are too many.
        """
        self._listed += 1
        self.check_count(self._listed)

    def check_count(self, entries: int) -> None:
        """Check the number of entries.

        Raises:
            UploadError: there are too many.
        """
        if entries > self.limits.entries:
            raise UploadError(
                f"the archive has {entries} entries; the maximum is {self.limits.entries}", "Send fewer files."
            )

    def add(self, name: str, size: int, is_folder: bool) -> PurePosixPath | None:
        """List a checked entry; gives its path if it is a file that counts.

        Raises:
            UploadError: the name leads out of the archive, or there is a file of this name.
        """
        path = clean_path(name)
        if "__MACOSX" in path.parts or any(part.startswith(".") for part in path.parts):
            return None
        self.folders.update(path.parents)
        if is_folder:
            self.folders.add(path)
        if is_folder or path.name.lower() in SYSTEM_FILES:
            return None
        if path in self.files:
            raise UploadError(f"the archive contains {str(path)[:120]!r} twice", "Create the archive again.")
        self.files[path] = size
        return path

    def check_total(self) -> None:
        """Check the size of all files together.

        Raises:
            UploadError: it is too large.
        """
        if sum(self.files.values()) > self.limits.inflated_bytes:
            raise UploadError(
                f"the uncompressed archive is larger than {self.limits.inflated_bytes} bytes",
                "Send fewer or smaller images.",
            )

    def count_bytes(self, path: PurePosixPath, so_far: int, chunk: int, most: int) -> None:
        """Count bytes as they are decompressed.

        Raises:
            UploadError: they are more than the header states, or more than the archive may hold.
        """
        self._inflated += chunk
        if so_far > most or self._inflated > 3 * self.limits.inflated_bytes:
            raise UploadError(f"{str(path)[:120]!r} is larger than its header states", "Create the archive again.")


def clean_path(name: str) -> PurePosixPath:
    """The path of an entry: a backslash separates folders as a slash does, and a leading `./` is dropped.

    Raises:
        UploadError: it leads out of the archive, or lies too deep in folders.
    """
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.rstrip("/").split("/") if part != "."]
    if slashed.startswith("/") or {"", ".."} & set(parts) or ":" in "".join(parts[:1]) or "\0" in name:
        raise UploadError(
            f"the path of the archive entry {name[:120]!r} is not relative to the archive",
            "Create the archive from within its folder.",
        )
    if len(parts) > MOST_FOLDERS:  # memory grows with the square of the depth
        raise UploadError(
            f"the archive entry {name[:120]!r} lies {len(parts) - 1} folders deep; the maximum is {MOST_FOLDERS - 1}",
            "Create the archive from fewer folders within each other.",
        )
    return PurePosixPath(*parts)
