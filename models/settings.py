"""Settings of every process, from the environment (`DISTILL_…`) or a file of such lines."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.addresses import Network, networks_of


class Settings(BaseSettings):
    """The defaults are the embedded set: SQLite, a folder and a queue of files, all under `data`."""

    model_config = SettingsConfigDict(env_prefix="DISTILL_", env_file=".env", extra="ignore")

    data: Path = Field(
        Path(".distillery"),
        description="Folder of the embedded set, of attempts' working folders and of the first key.",
    )
    database_url: str = Field("", description="SQLAlchemy URL; empty for SQLite in `data`.")
    storage_url: str = Field("", description="`file:///folder` or `s3://bucket/prefix`; empty for a folder in `data`.")
    storage_endpoint: str | None = Field(None, description="Address of an S3 server other than Amazon's.")
    storage_public_endpoint: str | None = Field(
        None, description="Where clients reach the same S3 server; set, downloads are redirected."
    )
    storage_access_key: str | None = Field(
        None, description="Access key of the S3 server; empty for what boto3 finds (environment, profile, role)."
    )
    storage_secret_key: str | None = Field(
        None, description="Secret key of the S3 server; empty as well for what boto3 finds."
    )
    storage_region: str = Field("us-east-1", description="Region of the S3 server.")
    broker_url: str = Field("", description="`redis://` or `rediss://`; empty for `filesystem://` in `data`.")

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, description="Port that the API listens on.")
    environment: Literal["laptop", "production"] = Field("laptop", description="`production` allows less.")
    sandbox: Literal["required", "preferred", "off"] | None = Field(
        None,
        description="Whether engines must be confined: a worker that cannot confine them does not start if `required`, and"
        " warns if `preferred`; empty for `required` in production, else `preferred`.",
    )

    lease_seconds: float = Field(60.0, gt=0, description="A worker that is silent for so long has lost its job.")
    beat_seconds: float = Field(10.0, gt=0, description="A worker renews its lease so often.")
    sweep_seconds: float = Field(5.0, gt=0, description="Every worker looks so often for due work and lost leases.")
    cancel_grace_seconds: float = Field(2.0, gt=0, description="An engine asked to end by a cancel has so long.")
    drain_grace_seconds: float = Field(10.0, gt=0, description="An engine asked to checkpoint and end has so long.")
    stall_seconds: float = Field(
        600.0, gt=0, description="An engine that says nothing for so long is taken for hung and killed."
    )
    storage_patience_seconds: float = Field(
        300.0, ge=0, description="A worker waits so long for a storage that is away before it puts its job back."
    )
    most_lost_attempts: int = Field(
        3, ge=1, description="So many attempts without progress in a row fail a job as poison."
    )
    checkpoint_seconds: float = Field(30.0, ge=0, description="Least time between checkpoints.")
    engine_threads: int | None = Field(None, ge=1, description="Threads of the engine; empty for the machine's cores.")
    engine_start: Literal["auto", "fork", "fresh"] = Field(
        "auto",
        description="How an engine starts: `fresh` is a new interpreter, `fork` a copy of one that has imported torch;"
        " `auto` forks on Linux where no GPU is seen.",
    )
    device: str = Field("auto", description="`auto`, `cpu` or `cuda`.")
    devices: int | None = Field(
        None,
        ge=1,
        le=64,
        description="How many devices one job may use on this worker; empty for all GPUs that it sees, or 1 CPU process.",
    )

    upload_bytes: int = Field(4 * 2**30, gt=0, description="Largest upload.")
    storage_bytes: int = Field(100 * 2**30, gt=0, description="What one key may store.")
    network_parameters: int = Field(2 * 10**9, gt=0, description="Largest teacher or student.")
    job_minutes: int = Field(24 * 60, gt=0, description="Longest job.")
    queued_jobs: int = Field(1000, gt=0, description="What one key may have queued.")
    running_jobs: int = Field(100, gt=0, description="What one key may have running.")
    highest_priority: int = Field(100, ge=-100, le=100, description="The highest priority that a key's jobs may have.")
    requests_a_minute: int = Field(3000, gt=0, description="What one key may ask, of each process of the API.")
    failures_a_minute: int = Field(
        60, gt=0, description="Requests with a wrong key from one address, of each process of the API."
    )

    webhook_seconds: float = Field(15.0, gt=0, description="A receiver of a webhook has so long to answer.")
    webhook_retry_seconds: str = Field(
        "5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400",
        description="Pauses between tries at a delivery, each up to a fifth longer by chance; then it has failed.",
    )
    webhook_allow: str = Field(
        "", description="Inward networks that webhooks may reach, http included: `10.1.0.0/16, 127.0.0.0/8`."
    )
    webhook_ports: str = Field("443", description="Ports that webhooks may reach.")
    webhook_ca_file: str = Field("", description="Certificates (PEM) that webhooks trust besides the public ones.")

    keep_artifacts_days: float = Field(0.0, ge=0, description="Artifacts of ended jobs; 0 keeps them for ever.")
    keep_previews_days: float = Field(30.0, ge=0, description="Previews and logs, once they are made; 0 for ever.")
    keep_history_days: float = Field(90.0, ge=0, description="Events and metrics of ended jobs; 0 for ever.")
    keep_unsent_days: float = Field(7.0, ge=0, description="Uploads whose bytes were never sent; 0 for ever.")
    keep_rejected_days: float = Field(30.0, ge=0, description="Uploads that were rejected; 0 for ever.")
    keep_deliveries_days: float = Field(30.0, ge=0, description="Webhook deliveries that are over; 0 for ever.")
    keep_orphans_hours: float = Field(24.0, gt=0, description="Blobs that no row names, before they are swept.")

    @model_validator(mode="after")
    def _beats_fit_into_a_lease(self) -> Self:
        if 2 * self.beat_seconds > self.lease_seconds:
            raise ValueError("beat_seconds must be at most half of lease_seconds, or workers lose their jobs")
        return self

    @model_validator(mode="after")
    def _knows_the_broker(self) -> Self:
        scheme = self.broker_url.partition(":")[0]
        if scheme not in ("", "filesystem", "redis", "rediss"):
            raise ValueError(
                f"broker_url must begin with redis:// or rediss://, or be empty; {scheme}:// was never tried"
            )
        return self

    @model_validator(mode="after")
    def _webhooks_can_be_read(self) -> Self:
        try:
            read = self.webhook_networks, self.webhook_port_numbers, self.webhook_pauses
        except ValueError as error:
            raise ValueError(f"a webhook setting is not a list of networks, ports or seconds: {error}") from error
        if any(number < 0 for number in (*read[1], *read[2])):
            raise ValueError("webhook_ports and webhook_retry_seconds must not be negative")
        return self

    @cached_property
    def webhook_networks(self) -> tuple[Network, ...]:
        return networks_of(self.webhook_allow)

    @cached_property
    def webhook_port_numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.webhook_ports.split(",") if part.strip())

    @cached_property
    def webhook_pauses(self) -> tuple[float, ...]:
        return tuple(float(part) for part in self.webhook_retry_seconds.split(",") if part.strip())

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
    def sandboxing(self) -> Literal["required", "preferred", "off"]:
        """Whether engines must be confined."""
        return self.sandbox or ("required" if self.environment == "production" else "preferred")

    @property
    def key_file(self) -> Path:
        """Where the first start leaves the embedded key, readable by its owner alone."""
        return self.data / "key"

    @property
    def work_folder(self) -> Path:
        """Where attempts have their folders."""
        return self.data / "work"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
