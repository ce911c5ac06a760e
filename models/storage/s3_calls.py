"""S3 operations that obstore lacks: presigned links with a file name, and aborting incomplete multipart uploads.

obstore reads and writes blobs, but it cannot set the file name of a presigned link, and it neither lists nor aborts
multipart uploads. boto3 can. It also finds credentials in the places where AWS's own tools find them: our settings,
environment variables, profiles, and the roles of containers and instances. It is imported at its first use, because the
import takes about as long as all other imports of the API together.
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
"""How long obstore caches credentials that expire. boto3 renews them ten minutes before they expire."""


@dataclass(frozen=True)
class Unfinished:
    """An incomplete multipart upload; `started_at` is in seconds since 1970 by the store's clock."""

    key: str
    upload_id: str
    started_at: float


@dataclass(frozen=True)
class S3Calls:
    """Calls on one bucket. The service uses `endpoint` (None: AWS); links for clients use `public_endpoint` (None: no
    links)."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    public_endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None

    def link(self, key: str, seconds: int, file_name: str, content_type: str) -> str | None:
        """A link to GET a blob, valid for `seconds`; browsers save it as `file_name`. None without a public endpoint.

        If the credentials expire earlier, so does the link.

        Raises:
            Unavailable: no credentials were found.
        """
        if self.public_endpoint is None:
            return None
        from botocore.exceptions import BotoCoreError

        parameters = {
            "Bucket": self.bucket,
            "Key": f"{self._key_prefix}{key}",
            "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "ResponseContentType": content_type,
        }
        try:
            return str(
                self._client_for_links.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
            )
        except BotoCoreError as error:
            raise Unavailable(key, f"the link cannot be signed: {error}") from error

    def abort_unfinished(self, older_than_seconds: float) -> int:
        """Abort the incomplete multipart uploads that are older than this; returns how many.

        Raises:
            Unavailable: the server does not respond, or refuses.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        before = datetime.now(UTC).timestamp() - older_than_seconds
        aborted = 0
        try:
            for one in list(self.unfinished()):
                if one.started_at < before:
                    self._abort(one)
                    aborted += 1
        except (BotoCoreError, ClientError) as error:
            raise Unavailable("", f"incomplete multipart uploads cannot be listed or aborted: {error}") from error
        return aborted

    def unfinished(self) -> Iterator[Unfinished]:
        """All incomplete multipart uploads under the prefix, fetched page by page."""
        pages = self._client_of_service.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self._key_prefix
        )
        for page in pages:
            for one in page.get("Uploads", ()):
                yield Unfinished(one["Key"], one["UploadId"], one["Initiated"].timestamp())

    def _abort(self, one: Unfinished) -> None:
        try:
            self._client_of_service.abort_multipart_upload(Bucket=self.bucket, Key=one.key, UploadId=one.upload_id)
        except self._client_of_service.exceptions.NoSuchUpload:
            return  # the writer has just finished, or another sweep has aborted it

    def credentials(self) -> "S3Credential":
        """The credentials that boto3 finds, in obstore's form.

        Raises:
            Unavailable: boto3 finds none.
        """
        found = self._session.get_credentials()
        if found is None:
            raise Unavailable(
                self.bucket,
                "no credentials for S3 were found: set DISTILL_STORAGE_ACCESS_KEY and DISTILL_STORAGE_SECRET_KEY, or assign a role",
            )
        frozen = found.get_frozen_credentials()
        given: S3Credential = {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "expires_at": datetime.now(UTC) + CREDENTIALS_KEPT,
        }
        return given | {"token": frozen.token} if frozen.token else given

    @property
    def _key_prefix(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    @cached_property
    def _session(self) -> "Session":
        from boto3.session import Session

        return Session(self.access_key, self.secret_key, region_name=self.region)

    @cached_property
    def _client_of_service(self) -> Any:
        return self._client(self.endpoint)

    @cached_property
    def _client_for_links(self) -> Any:
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
