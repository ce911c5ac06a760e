"""Multipart uploads to a bucket whose writer was killed: no listing of blobs shows them, and they take up room.

The storage library neither lists nor aborts them, so this asks the S3 server itself: `ListMultipartUploads` and
`AbortMultipartUpload` of the Amazon S3 API reference.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree

from models.storage.presign import Signer

SECONDS = 20.0
NAMESPACE = "{*}"


@dataclass(frozen=True)
class Unfinished:
    """One upload that has been begun; `begun` in seconds since 1970 by the store's clock."""

    key: str
    upload_id: str
    begun: float


@dataclass(frozen=True)
class Multiparts:
    """The unfinished uploads under a prefix of a bucket; `signer` is of the whole bucket, at the address for us."""

    signer: Signer
    prefix: str

    def discard(self, older_than_seconds: float) -> int:
        """Abort those that were begun so long ago; says how many.

        Raises:
            OSError: the server does not answer, or refuses.
        """
        before, discarded = datetime.now(UTC).timestamp() - older_than_seconds, 0
        for one in list(self.list()):
            if one.begun < before:
                self._ask("DELETE", one.key, {"uploadId": one.upload_id})
                discarded += 1
        return discarded

    def list(self) -> Iterator[Unfinished]:
        """All of them, page by page."""
        prefix = f"{self.prefix}/" if self.prefix else ""
        place: dict[str, str] = {}
        while True:
            page = ElementTree.fromstring(self._ask("GET", "", {"uploads": "", "prefix": prefix} | place))
            for upload in page.findall(f"{NAMESPACE}Upload"):
                key, upload_id, begun = (_text(upload, name) for name in ("Key", "UploadId", "Initiated"))
                yield Unfinished(key, upload_id, datetime.fromisoformat(begun).timestamp())
            if _text(page, "IsTruncated") != "true":
                return
            markers = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
            place = {name: _text(page, tag) for name, tag in markers.items()}

    def _ask(self, method: Literal["GET", "DELETE"], key: str, query: dict[str, str]) -> bytes:
        link = self.signer.signed(key, 60, datetime.now(UTC), query, method)
        try:
            with urllib.request.urlopen(urllib.request.Request(link, method=method), timeout=SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404 and method == "DELETE":
                    return b""  # its writer has just finished, or another sweep was quicker
                raise OSError(f"the S3 server answers {error.code} to {method} of unfinished uploads") from error


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{NAMESPACE}{name}") or ""
