"""Where the service keeps its data: the folder `data`, the database, object storage, the broker."""

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsOfPlaces(BaseSettings):
    """Places. The defaults are the embedded mode: SQLite, a storage folder and a queue of files, all under `data`."""

    model_config = SettingsConfigDict(env_prefix="DISTILL_", env_file=".env", extra="ignore")

    data: Path = Field(
        Path(".distillery"),
        description="Folder of the embedded mode, the working folders of attempts, and the first key.",
    )
    database_url: str = Field("", description="SQLAlchemy URL. If empty: SQLite in `data`.")
    storage_url: str = Field("", description="`file:///folder` or `s3://bucket/prefix`. If empty: a folder in `data`.")
    storage_endpoint: str | None = Field(None, description="URL of the S3 server. If empty: Amazon S3.")
    storage_public_endpoint: str | None = Field(
        None, description="URL at which clients reach the S3 server. If set, downloads are redirected to it."
    )
    storage_access_key: str | None = Field(
        None, description="Access key of the S3 server; empty for what boto3 finds (environment, profile, role)."
    )
    storage_secret_key: str | None = Field(
        None, description="Secret key of the S3 server; empty as well for what boto3 finds."
    )
    storage_region: str = Field("us-east-1", description="Region of the S3 server.")
    broker_url: str = Field("", description="`redis://` or `rediss://` URL. If empty: a queue of files in `data`.")

    weights: Path | None = Field(
        None,
        description="Folder of pretrained weights under their official names, for `initial_weights: pretrained`; each worker reads"
        " it. If empty: `weights` in `data`.",
    )

    @model_validator(mode="after")
    def _require_supported_broker(self) -> Self:
        scheme = self.broker_url.partition(":")[0]
        if scheme not in ("", "filesystem", "redis", "rediss"):
            raise ValueError(
                f"broker_url must start with redis:// or rediss://, or be empty; {scheme}:// is not supported"
            )
        return self

    @cached_property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data.absolute() / 'distillery.db'}"

    @cached_property
    def storage(self) -> str:
        return self.storage_url or (self.data.absolute() / "blobs").as_uri()

    @cached_property
    def broker(self) -> str:
        return self.broker_url or "filesystem://"

    @property
    def sign_in_file(self) -> Path:
        """File with the SHA-256 of the token of a sign-in link; it is removed when the link is used."""
        return self.data / "sign-in"

    @property
    def key_file(self) -> Path:
        """File to which the first start writes the first key, readable only by its owner."""
        return self.data / "key"

    @property
    def weights_folder(self) -> Path:
        """Folder of pretrained weights; it need not exist."""
        return self.weights or self.data / "weights"

    @property
    def work_folder(self) -> Path:
        """Folder of the working folders of attempts."""
        return self.data / "work"
