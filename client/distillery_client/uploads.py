"""Teachers, datasets and other files: create a record, upload its bytes, wait for the inspection."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from distillery_client.connection import Connection
from distillery_client.errors import Conflict, Rejected
from distillery_client.packed_file import packed_program, teacher_spec
from distillery_client.paging import pages
from distillery_client.waiting import Record, until

CHUNK_BYTES = 1 << 20
RANGE_BYTES = 64 << 20
"""Bytes of one range. A file larger than four of them is sent in ranges, so that a broken upload can be continued."""

Progress = Callable[[int, int], None]
"""Called with the number of bytes so far and the total."""


class Uploads:
    """The uploads of one kind: `client.teachers`, `client.datasets`, `client.files`."""

    def __init__(self, connection: Connection, kind: str):
        self.connection = connection
        self.kind = kind

    def create(self, **spec: Any) -> Record:
        """Create a record without bytes. `spec` is the body of the POST; entries that are None are left out."""
        body = {name: value for name, value in spec.items() if value is not None}
        return self._json("POST", self.kind, json=body)

    def upload(self, record: Record, file: Path, progress: Progress | None = None) -> Record:
        """Stream a file to the record and return the record (usually `inspecting`). A large file is sent in ranges; if the record
        has received some of them, the rest is sent.

        Raises:
            Refused: the file is too large or exceeds the quota, or the record already has other bytes.
        """
        if file.stat().st_size > 4 * RANGE_BYTES:
            return self._upload_ranges(record, file, progress)
        headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        link = self._link(record)
        try:
            response = self.connection.request("PUT", link, content=lambda: _chunks(file, progress), headers=headers)
        except Conflict:
            known = self.get(record["id"])  # a retried PUT conflicts with the first one if only its response was lost
            if known.get("sha256") != sha256_of(file):
                raise
            return known
        return dict(response.json())

    def _upload_ranges(self, record: Record, file: Path, progress: Progress | None) -> Record:
        link, total = self._link(record), file.stat().st_size
        record = self.get(record["id"])
        while record["status"] in ("waiting", "rejected"):
            first = record.get("received", 0) if record.get("size") == total and record["status"] == "waiting" else 0
            size = min(RANGE_BYTES, total - first)
            headers = {
                "Content-Length": str(size),
                "Content-Type": "application/octet-stream",
                "Content-Range": f"bytes {first}-{first + size - 1}/{total}",
            }
            content = partial(_chunks, file, progress, first, size)
            try:
                record = dict(self.connection.request("PUT", link, content=content, headers=headers).json())
            except Conflict:
                newer = self.get(record["id"])  # the response to an earlier try of this range was lost
                if newer.get("received") == record.get("received") and newer["status"] == record["status"]:
                    raise
                record = newer
        return record

    def send(
        self, file: Path, progress: Progress | None = None, timeout_seconds: float | None = None, **spec: Any
    ) -> Record:
        """Create a record, upload its bytes and wait until it is `ready`. A program's file describes its own teacher.

        Raises:
            Rejected: the inspection rejected the bytes.
            StillWaiting: the inspection has not ended after `timeout_seconds`.
        """
        packed = packed_program(file) if self.kind == "teachers" and "network" not in spec else None
        known = teacher_spec(packed) if packed else {}
        record = self.create(**({"name": file.stem} | known | spec))
        self.upload(record, file, progress)
        return self.wait(record["id"], timeout_seconds)

    def wait(self, identifier: str, timeout_seconds: float | None = None) -> Record:
        """Wait until the inspection has ended and return the record.

        Raises:
            Rejected: the inspection rejected the bytes.
            StillWaiting: the inspection has not ended after `timeout_seconds`.
        """
        path = f"{self.kind}/{identifier}"
        record = until(self.connection, path, lambda it: it["status"] in ("ready", "rejected"), timeout_seconds)
        if record["status"] == "rejected":
            raise Rejected(record)
        return record

    def get(self, identifier: str) -> Record:
        return self._json("GET", f"{self.kind}/{identifier}")

    def list(self, **filters: Any) -> Iterator[Record]:
        """All records, newest first, fetched page by page."""
        return pages(self.connection, self.kind, filters)

    def update(self, identifier: str, **changes: Any) -> Record:
        """Change the name or the labels."""
        return self._json("PATCH", f"{self.kind}/{identifier}", json=changes)

    def delete(self, identifier: str) -> None:
        self.connection.request("DELETE", f"{self.kind}/{identifier}")

    def _json(self, method: str, path: str, **options: Any) -> Record:
        return dict(self.connection.request(method, path, **options).json())

    def _link(self, record: Record) -> str:
        """The path of the upload URL. Its host is ignored, so that the key is sent only to the URL of this client."""
        return str(record["upload"]).partition("/v1/")[2]


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _chunks(file: Path, progress: Progress | None, first: int = 0, size: int | None = None) -> Iterator[bytes]:
    total, done = file.stat().st_size, first
    end = total if size is None else first + size
    with file.open("rb") as stream:
        stream.seek(first)
        while chunk := stream.read(min(CHUNK_BYTES, end - done)):
            yield chunk
            done += len(chunk)
            if progress:
                progress(done, total)
