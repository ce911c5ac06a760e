"""Settings of all processes, from environment variables (`DISTILL_…`) or a `.env` file."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from models.addresses import Network, networks_of
from models.settings_of_places import SettingsOfPlaces


class Settings(SettingsOfPlaces):
    """All settings."""

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, description="Port that the API listens on.")
    dashboard_hosts: str = Field(
        "",
        description="Host names at which browsers reach the dashboard, comma-separated: `distillery.example.com`. `localhost`,"
        " loopback addresses and `host` are always allowed; the dashboard refuses any other `Host` header.",
    )
    environment: Literal["laptop", "production"] = Field(
        "laptop",
        description="`production` requires the sandbox by default, logs JSON and does not say where the first key is.",
    )
    sandbox: Literal["required", "preferred", "off"] | None = Field(
        None,
        description="Whether engines must run in a sandbox. A worker that cannot provide one does not start if `required`"
        " and warns if `preferred`. If empty: `required` in production, else `preferred`.",
    )

    client_seconds: float = Field(
        30.0,
        gt=0,
        description="Time for a client to send the head of a request, to send its share of a body, and to read some of a"
        " response, in seconds. Then the request or the connection ends.",
    )
    body_bytes_a_second: int = Field(
        1000,
        ge=0,
        description="Least rate at which a body must arrive, measured over `client_seconds`, in bytes a second.",
    )
    uploads_at_once: int = Field(
        8, gt=0, description="Uploads that one key may send to each API process at the same time."
    )

    downloads_at_once: int = Field(
        8,
        gt=0,
        description="Downloads of more than a megabyte that one key may receive from each API process at the same time.",
    )

    lease_seconds: float = Field(
        60.0,
        gt=0,
        description="Validity of a lease after its last renewal, in seconds. Then the attempt counts as lost.",
    )
    beat_seconds: float = Field(
        10.0, gt=0, description="Interval between two renewals of a worker's lease, in seconds."
    )
    sweep_seconds: float = Field(
        5.0, gt=0, description="Interval at which every worker looks for due work and expired leases, in seconds."
    )
    cancel_grace_seconds: float = Field(
        2.0, gt=0, description="Grace period before a cancelled engine is killed, in seconds."
    )
    drain_grace_seconds: float = Field(
        10.0,
        gt=0,
        description="Grace period for an engine to write a checkpoint and end when it is drained, in seconds.",
    )
    stall_seconds: float = Field(
        600.0,
        gt=0,
        description="Time without any event after which an engine counts as stalled and is killed, in seconds.",
    )
    storage_patience_seconds: float = Field(
        300.0,
        ge=0,
        description="How long a worker retries if the storage is unavailable before it returns its job to the queue,"
        " in seconds.",
    )
    most_lost_attempts: int = Field(
        3, ge=1, description="Number of attempts lost in a row without progress after which a job fails as poison."
    )
    checkpoint_seconds: float = Field(30.0, ge=0, description="Shortest time between two checkpoints, in seconds.")
    engine_threads: int | None = Field(
        None, ge=1, description="CPU threads of an engine. If empty: the number of the machine's cores."
    )
    engine_start: Literal["auto", "fork", "fresh"] = Field(
        "auto",
        description="How engines start: `fresh` starts a new interpreter, `fork` forks a process that has already imported"
        " torch. `auto` forks on Linux without a visible GPU.",
    )
    engine_cgroup: Path | None = Field(
        None,
        description="Folder of cgroup v2 that is delegated to the worker. Jobs then have control groups in it that limit their"
        " memory, also with a GPU. If empty: none.",
    )
    device: str = Field("auto", description="Device of the engines: `auto`, `cpu` or `cuda`.")
    tf32: bool = Field(
        True,
        description="Whether a GPU may compute float32 convolutions and products of matrices in TF32, with 10 bits of mantissa.",
    )
    cuda_graphs: bool = Field(
        False,
        description="Whether a job's teacher is replayed as a CUDA graph where only its logits are read, so that a small teacher does"
        " not wait for Python. Takes GPU memory for one more batch.",
    )
    devices: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Number of devices that one job may use on this worker. If empty: all visible GPUs, or 1 CPU process.",
    )

    free_bytes: int = Field(
        512 * 2**20,
        ge=0,
        description="Free space on the disk of `data`, in bytes, below which a worker claims nothing.",
    )
    cache: Path | None = Field(
        None,
        description="Folder of the cache of datasets, which the workers of a machine share. If empty: `cache` in `data`.",
    )
    cache_bytes: int = Field(
        50 * 2**30,
        ge=0,
        description="Largest size of the cache of datasets, in bytes. The dataset that was used least recently is removed"
        " first. 0: every job gets a copy.",
    )
    inspection_seconds: float = Field(
        300.0,
        gt=0,
        description="Longest duration of the inspection of an upload, in seconds, plus one second for each megabyte of it.",
    )
    inspection_bytes: int = Field(
        2**30,
        gt=0,
        description="Memory of the inspection of an upload, in bytes, beyond three times its size and that of its canonical"
        " form. An inspection never gets more than half of the machine's memory.",
    )

    upload_bytes: int = Field(64 * 2**30, gt=0, description="Largest upload, in bytes.")
    dataset_sources: str = Field(
        "",
        description="Folders of the workers and prefixes of buckets from which datasets may be read by reference, comma-separated:"
        " `file:///srv/datasets, s3://bucket/prefix`. Buckets are those of the S3 server of `storage_endpoint`. If empty: none.",
    )
    storage_bytes: int = Field(100 * 2**30, gt=0, description="Storage quota of one key, in bytes.")
    network_parameters: int = Field(
        2 * 10**9, gt=0, description="Largest number of parameters of a teacher or student."
    )
    recognition_seconds: float = Field(
        180.0,
        gt=0,
        le=3600,
        description="Longest search for the network of a teacher that is recognised by labelled images, in seconds of processor time; ten"
        " times as many by the clock.",
    )
    job_minutes: int = Field(24 * 60, gt=0, description="Longest duration of a job, in minutes.")
    queued_jobs: int = Field(1000, gt=0, description="Largest number of queued jobs of one key.")
    running_jobs: int = Field(100, gt=0, description="Largest number of running jobs of one key.")
    highest_priority: int = Field(100, ge=-100, le=100, description="Highest priority that a job may have.")
    requests_a_minute: int = Field(
        3000, gt=0, description="Requests that one key may send to each API process in a minute."
    )
    failures_a_minute: int = Field(
        60, gt=0, description="Requests with a wrong key that one address may send to each API process in a minute."
    )

    webhook_seconds: float = Field(
        15.0, gt=0, description="Timeout for the response of a webhook receiver, in seconds."
    )
    webhook_retry_seconds: str = Field(
        "5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400",
        description="Pauses between tries of a delivery, in seconds; each is randomly up to a fifth longer. After the last"
        " try the delivery has failed.",
    )
    webhook_allow: str = Field(
        "",
        description="Networks that are not public but that webhooks may reach, also over http:"
        " `10.1.0.0/16, 127.0.0.0/8`.",
    )
    webhook_ports: str = Field("443", description="Ports that webhooks may reach.")
    webhook_ca_file: str = Field(
        "", description="File of certificates (PEM) that webhooks trust in addition to the public ones."
    )

    mlflow_tracking_uri: str = Field(
        "",
        description="URL of an MLflow server that shows every job as a run: `https://mlflow.example.com`, or with"
        " `user:password@` before the host. The workers send to it. If empty: none.",
    )
    mlflow_token: str = Field("", description="Token that MLflow gets as `Authorization: Bearer …`.")
    mlflow_experiment: str = Field(
        "distillery", min_length=1, description="Name of the MLflow experiment; it is created if it does not exist."
    )
    mlflow_artifact_bytes: int = Field(
        2**30, ge=0, description="Largest artifact that is copied to MLflow, in bytes. 0: none is copied."
    )
    mlflow_seconds: float = Field(
        15.0, gt=0, description="Timeout for a response of MLflow, in seconds, plus one second for each megabyte sent."
    )

    keep_artifacts_days: float = Field(
        0.0, ge=0, description="Days after the end of a job until its artifacts are removed. 0: never."
    )
    keep_previews_days: float = Field(
        30.0, ge=0, description="Days until a preview or a log is removed, from its creation. 0: never."
    )
    keep_history_days: float = Field(
        90.0, ge=0, description="Days after the end of a job until its events and metrics are removed. 0: never."
    )
    keep_unsent_days: float = Field(
        7.0, ge=0, description="Days until an upload is removed whose bytes were never sent. 0: never."
    )
    keep_rejected_days: float = Field(30.0, ge=0, description="Days until a rejected upload is removed. 0: never.")
    keep_deliveries_days: float = Field(
        30.0, ge=0, description="Days until a finished webhook delivery is removed. 0: never."
    )
    keep_orphans_hours: float = Field(24.0, gt=0, description="Hours until a blob is removed that no row refers to.")

    @model_validator(mode="after")
    def _require_short_beats(self) -> Self:
        if 2 * self.beat_seconds > self.lease_seconds:
            raise ValueError(
                f"beat_seconds ({self.beat_seconds:g}) must be at most half of lease_seconds ({self.lease_seconds:g}):"
                " otherwise leases expire while their workers run"
            )
        return self

    @model_validator(mode="after")
    def _require_valid_webhook_lists(self) -> Self:
        try:
            read = self.webhook_networks, self.webhook_port_numbers, self.webhook_pauses
        except ValueError as error:
            raise ValueError(
                f"a webhook setting is malformed: {error}. Write webhook_allow, webhook_ports and webhook_retry_seconds as"
                " comma-separated lists of networks, ports and seconds"
            ) from error
        if any(number < 0 for number in (*read[1], *read[2])):
            raise ValueError("webhook_ports and webhook_retry_seconds must not be negative")
        return self

    @model_validator(mode="after")
    def _require_address_of_mlflow(self) -> Self:
        uri = self.mlflow_tracking_uri
        if uri and (not uri.startswith(("http://", "https://")) or not urlsplit(uri).hostname):
            raise ValueError("mlflow_tracking_uri must be the URL of an MLflow server, http://… or https://…, or empty")
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

    @property
    def sandboxing(self) -> Literal["required", "preferred", "off"]:
        """The value of `sandbox`, or its default in this environment."""
        return self.sandbox or ("required" if self.environment == "production" else "preferred")

    @property
    def cache_folder(self) -> Path:
        """Folder of the cache of datasets."""
        return self.cache or self.data / "cache"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
