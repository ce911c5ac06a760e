"""What jobs made: listed, and downloaded whole and right."""

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
    """`client.artifacts`, the files of a succeeded job, and `client.previews`, the pictures of any job."""

    def __init__(self, connection: Connection, kind: str):
        self.connection, self.kind = connection, kind

    def list(self, job: str) -> list[Record]:
        """What there is, each with `name`, `size` and `sha256`."""
        return list(pages(self.connection, f"jobs/{job}/{self.kind}", {}))

    def download(self, job: str, name: str, target: Path, progress: Progress | None = None) -> Path:
        """Fetch a file to `target`, or into it where it is a folder, and return its path.

        Bytes go to a file beside it, whose name holds the SHA-256, and a download that broke off goes on there, also in
        a later call. The name changes when all bytes are there and their SHA-256 is right.

        Raises:
            NotFound: the job has no such file.
            Corrupt: the bytes are not those that the service publishes.
        """
        about = next((one for one in self.list(job) if one["name"] == name), None)
        if about is None:
            raise NotFound(404, {"detail": f"{job} has nothing called {name} among its {self.kind}", "status": 404})
        file = target / Path(name).name if target.is_dir() else target
        if file.is_file() and file.stat().st_size == about["size"] and sha256_of(file) == about["sha256"]:
            return file
        return self._fetch(f"jobs/{job}/{self.kind}/{name}", about, file, progress)

    def _fetch(self, path: str, about: Record, file: Path, progress: Progress | None) -> Path:
        part = file.with_name(f".{file.name}.{about['sha256'][:16]}.part")
        while (have := _size(part)) < about["size"]:
            try:
                self.connection.repeat(lambda: self._fetch_rest(path, part, about["size"], progress))
            except Unreachable:
                if _size(part) == have:
                    raise
        if sha256_of(part) != about["sha256"]:
            part.unlink()
            raise Corrupt(f"{file.name} arrived damaged and was deleted: download it again")
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
    """Bytes that are there; -1 where there is no file yet, so that an empty artifact is fetched too."""
    return part.stat().st_size if part.exists() else -1
