"""The storage given by the settings: a folder or a bucket."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.store import LocalStore, S3Store

from models.made_once import MadeOnce
from models.settings import Settings, settings
from models.storage.blobs import Storage
from models.storage.dataset_sources import Source
from models.storage.errors import Unavailable
from models.storage.s3_calls import S3Calls

if TYPE_CHECKING:
    from obstore.store import S3Config


def open_storage(settings: Settings) -> Storage:
    """The storage given by the settings.

    Raises:
        ValueError: the URL is neither `file:///folder` nor `s3://bucket/prefix`.
        Unavailable: the folder cannot be used.
    """
    url = urlsplit(settings.storage)
    if url.scheme == "file" and url.path:
        folder = Path(url2pathname(url.path))
        try:
            return Storage(LocalStore(folder, automatic_cleanup=True, mkdir=True), folder=folder)
        except OSError as error:
            raise Unavailable(str(folder), f"the folder cannot be used: {error}") from error
    if url.scheme == "s3" and url.netloc:
        return _open_bucket(settings, url.netloc, url.path.strip("/"))
    raise ValueError(f"storage must be file:///folder or s3://bucket/prefix, not {settings.storage}")


def _open_bucket(settings: Settings, bucket: str, prefix: str) -> Storage:
    endpoint, region = settings.storage_endpoint, settings.storage_region
    access, secret = settings.storage_access_key, settings.storage_secret_key
    if not (access and secret):
        access = secret = None
    s3 = S3Calls(bucket, prefix, region, endpoint, settings.storage_public_endpoint, access, secret)
    config: S3Config = {"region": region, "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if access and secret:
        config |= {"access_key_id": access, "secret_access_key": secret}
    store = S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={"allow_http": endpoint is not None, "connect_timeout": timedelta(seconds=5)},
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)},
        credential_provider=None if access else s3.credentials,
    )
    return Storage(store, s3=s3, spool=settings.data)


def open_source(settings: Settings, source: Source) -> Storage:
    """The bucket of a source, with the credentials of the service's own storage."""
    return _open_bucket(settings, source.bucket, source.prefix)


@MadeOnce
def storage() -> Storage:
    """The storage of this process."""
    return open_storage(settings())
