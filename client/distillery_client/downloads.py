"""Listing artifacts and previews, and downloading them with resumption and a check of the SHA-256."""

import os
from pathlib import Path
from typing import Any

import httpx

from distillery_client.connection import Connection
from distillery_client.errors import Corrupt, NotFound, Unreachable
from distillery_client.paging import pages
from distillery_client.uploads import Progress, sha256_of

Record = dict[str, Any]


class Downloads:
    """`client.artifacts`, the files of a succeeded job, and `client.previews`, the images of any job."""

    def __init__(self, connection: Connection, kind: str):
        self.connection = connection
        self.kind = kind

    def list(self, job: str) -> list[Record]:
        """The files of a job, each with `name`, `size` and `sha256`."""
        return list(pages(self.connection, f"jobs/{job}/{self.kind}", {}))

    def download(self, job: str, name: str, target: Path, progress: Progress | None = None) -> Path:
        """Download a file to `target`, or into `target` if it is a folder, and return its path.

        The bytes are written to a part file in the same folder, whose name contains the SHA-256. An interrupted download is
        resumed from it, also by a later call. When all bytes have arrived and their SHA-256 matches, it is renamed.

        Raises:
            NotFound: the job has no such file.
            Corrupt: the SHA-256 of the bytes is not the published one.
        """
        about = next((one for one in self.list(job) if one["name"] == name), None)
        if about is None:
            raise NotFound(404, {"detail": f"The {self.kind} of {job} contain no file named {name}.", "status": 404})
        file = target / Path(name).name if target.is_dir() else target
        if file.is_file() and file.stat().st_size == about["size"] and sha256_of(file) == about["sha256"]:
            return file
        return self._fetch(f"jobs/{job}/{self.kind}/{name}", about, file, progress)

    def _fetch(self, path: str, about: Record, file: Path, progress: Progress | None) -> Path:
        part = file.with_name(f".{file.name}.{about['sha256'][:16]}.part")
        while (have := _size(part)) < about["size"]:
            try:
                self.connection.retry(lambda: self._fetch_rest(path, part, about["size"], progress))
            except Unreachable:
                if _size(part) == have:
                    raise
        if sha256_of(part) != about["sha256"]:
            part.unlink()
            raise Corrupt(f"The SHA-256 of {file.name} does not match. The download was deleted: start it again.")
        part.replace(file)
        return file

    def _fetch_rest(self, path: str, part: Path, size: int, progress: Progress | None) -> None:
        have = _size(part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have > 0 else {})
        with self.connection.stream("GET", path, headers=headers, follow_redirects=True) as response:
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as stream:
                for chunk in response.iter_raw():
                    stream.write(chunk)
                    if progress:
                        progress(stream.tell(), size)
                stream.flush()
                os.fsync(stream.fileno())


def _size(part: Path) -> int:
    """Size of the part file; -1 if it does not exist, so that an empty artifact is downloaded too."""
    return part.stat().st_size if part.exists() else -1
