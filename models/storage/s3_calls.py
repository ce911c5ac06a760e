"""What only S3's own calls can do: links that carry their permission, and the end of unfinished multipart uploads.

obstore reads and writes blobs, but it cannot say under which name a link's blob is saved, and neither lists nor aborts
multipart uploads. boto3 can, and finds credentials wherever AWS's own tools find them: the settings here, environment
variables, profiles, and the roles of containers and instances. It is imported when it is first needed, since that costs
about as long as everything else that the API imports.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from models.storage.errors import Unavailable

if TYPE_CHECKING:
    from boto3.session import Session
    from obstore.store import S3Credential

CREDENTIALS_KEPT = timedelta(minutes=5)
"""How long obstore keeps credentials that expire; boto3 renews them ten minutes before their end."""


@dataclass(frozen=True)
class Unfinished:
    """One multipart upload that has been begun; `begun` in seconds since 1970 by the store's clock."""

    key: str
    upload_id: str
    begun: float


@dataclass(frozen=True)
class S3Calls:
    """One bucket. Clients reach it at `public_endpoint`, if they do; `endpoint` is for us, None for Amazon's."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    public_endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None

    def link(self, key: str, seconds: int, file_name: str, content_type: str) -> str | None:
        """A link to GET a blob for so many seconds, saved under this name; None where no client reaches the server.

        With credentials that expire, the link ends with them.

        Raises:
            Unavailable: no credentials were found.
        """
        if self.public_endpoint is None:
            return None
        from botocore.exceptions import BotoCoreError

        asked = {
            "Bucket": self.bucket,
            "Key": f"{self._inside}{key}",
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "ResponseContentType": content_type,
        }
        try:
            return str(self._public.generate_presigned_url("get_object", Params=asked, ExpiresIn=seconds))
        except BotoCoreError as error:
            raise Unavailable(key, f"no link can be signed: {error}") from error

    def abort_unfinished(self, older_than_seconds: float) -> int:
        """Abort the multipart uploads that were begun so long ago; says how many.

        Raises:
            Unavailable: the server does not answer, or refuses.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        before, aborted = datetime.now(UTC).timestamp() - older_than_seconds, 0
        try:
            for one in list(self.unfinished()):
                if one.begun < before:
                    self._abort(one)
                    aborted += 1
        except (BotoCoreError, ClientError) as error:
            raise Unavailable("", f"unfinished uploads cannot be listed or aborted: {error}") from error
        return aborted

    def unfinished(self) -> Iterator[Unfinished]:
        """All multipart uploads under the prefix that nobody has completed, page by page."""
        pages = self._own.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._inside)
        for page in pages:
            for one in page.get("Uploads", ()):
                yield Unfinished(one["Key"], one["UploadId"], one["Initiated"].timestamp())

    def _abort(self, one: Unfinished) -> None:
        try:
            self._own.abort_multipart_upload(Bucket=self.bucket, Key=one.key, UploadId=one.upload_id)
        except self._own.exceptions.NoSuchUpload:
            return  # its writer has just finished, or another sweep was quicker

    def credentials(self) -> "S3Credential":
        """The credentials that boto3 finds, for obstore.

        Raises:
            Unavailable: it finds none.
        """
        found = self._session.get_credentials()
        if found is None:
            raise Unavailable(self.bucket, "no credentials for S3 were found: set them, or give this machine a role")
        frozen = found.get_frozen_credentials()
        given: S3Credential = {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "expires_at": datetime.now(UTC) + CREDENTIALS_KEPT,
        }
        return given | {"token": frozen.token} if frozen.token else given

    @property
    def _inside(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    @cached_property
    def _session(self) -> "Session":
        from boto3.session import Session

        return Session(self.access_key, self.secret_key, region_name=self.region)

    @cached_property
    def _own(self) -> Any:
        return self._client(self.endpoint)

    @cached_property
    def _public(self) -> Any:
        return self._client(self.public_endpoint)

    def _client(self, endpoint: str | None) -> Any:
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        return self._session.client("s3", endpoint_url=endpoint, config=config)
