"""The bytes of an upload as they were sent, or the files of a dataset by reference, for its inspection."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from models.records.columns import Uploaded
from models.settings import settings
from models.storage.blobs import Entry
from models.storage.chunks import Tally, chunks_of
from models.storage.dataset_sources import Source, SourceRefused, allowed_source
from models.storage.errors import Damaged
from models.storage.opening import open_source
from worker.attempt.attempt_storage import AttemptStorage

FETCHES_AT_ONCE = 8
UPLOAD = "inputs/upload"


@dataclass(frozen=True)
class SentFiles:
    """A file or a folder that the engine reads, relative to its own folder or absolute, and its bytes; `reads` are folders outside
    its own that it may read."""

    path: str
    size: int
    sha256: str = ""
    reads: Sequence[Path] = ()


@dataclass(frozen=True)
class SentBytes:
    """Fetches the bytes of an upload into an attempt's folder."""

    folder: Path
    storage: AttemptStorage

    def sent(self, upload: Uploaded) -> SentFiles:
        """The bytes as sent; those of several ranges are joined.

        Raises:
            NotFound, Damaged: they are missing, or do not have the SHA-256 that was announced.
        """
        path = self.folder / UPLOAD
        if upload.upload_key:
            stored = self.storage.download(upload.upload_key, path, upload.sha256)
            return SentFiles(UPLOAD, stored.size, stored.sha256)
        tally, part = Tally(upload.id), path.with_name("part")
        with path.open("wb") as whole:
            for each in upload.upload_parts or []:
                self.storage.download(each["key"], part, each["sha256"])
                for chunk in chunks_of(part):
                    whole.write(tally.add(chunk))
        part.unlink(missing_ok=True)
        stored = tally.total()
        if upload.sha256 not in (None, stored.sha256):
            raise Damaged(upload.id, f"their SHA-256 is {stored.sha256}, not {upload.sha256} as announced")
        return SentFiles(UPLOAD, stored.size, stored.sha256)

    def by_reference(self, reference: str, most: int) -> SentFiles:
        """The files of a dataset by reference: a folder in place, or the objects under a prefix, of at most `most` bytes.

        Raises:
            SourceRefused: the operator does not allow it, there are no files, or they are too large.
        """
        source = allowed_source(reference, settings())
        return self._of_folder(source, most) if source.scheme == "file" else self._of_bucket(source, most)

    def _of_folder(self, source: Source, most: int) -> SentFiles:
        folder = Path(source.path).resolve()
        allowed_source(folder.as_uri(), settings())  # a link may lead elsewhere
        size = 0
        for path in folder.rglob("*"):
            self.storage.check()
            size += path.lstat().st_size if path.is_file() else 0
        _check_size(size, most)
        return SentFiles(str(folder), size, reads=[folder])

    def _of_bucket(self, source: Source, most: int) -> SentFiles:
        bucket = open_source(settings(), source)
        entries = [entry for entry in bucket.list() if entry.size]
        size = sum(entry.size for entry in entries)
        _check_size(size, most)
        root = self.folder / UPLOAD

        def fetch(entry: Entry) -> None:
            path = root.joinpath(*entry.key.split("/"))
            if not path.resolve().is_relative_to(root.resolve()):
                raise SourceRefused(f"contains {entry.key[:200]!r}, which leads out of its prefix")
            path.parent.mkdir(parents=True, exist_ok=True)
            bucket.download(entry.key, path, check=self.storage.check)

        with ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch") as threads:
            list(threads.map(fetch, entries))
        return SentFiles(UPLOAD, size)


def _check_size(size: int, most: int) -> None:
    if not size:
        raise SourceRefused("contains no files")
    if size > most:
        raise SourceRefused(f"contains {size} bytes; this key has room for {most}")
