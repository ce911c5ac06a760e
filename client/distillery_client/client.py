"""The client of the service."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from distillery_client.connection import Connection
from distillery_client.discovery import find
from distillery_client.downloads import Downloads
from distillery_client.experiments import Experiments
from distillery_client.jobs import Jobs
from distillery_client.keys import Keys
from distillery_client.uploads import Uploads


class Client:
    """A connection to Distillery.

    Without arguments it discovers the service and its key (see `discovery`). Records are the service's JSON objects as
    dictionaries. Errors are the classes of `errors`. Use the client in a `with` block, or call `close`.

        with Client() as client:
            teacher = client.teachers.send(Path("teacher.safetensors"), network="lenet5", classes=10, input={…})
            job = client.jobs.submit({"teacher": teacher["id"], "student": {"network": "lenet5_half"}})
            client.jobs.wait(job["id"])
            client.artifacts.download(job["id"], "student.onnx", Path("."))
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        data: Path | None = None,
        timeout_seconds: float = 30.0,
        attempts: int = 8,
        transport: httpx.BaseTransport | None = None,
    ):
        service = find(url, key, data)
        self.url = service.url
        self.connection = Connection(service.url, service.key, timeout_seconds, attempts, transport)
        self.teachers = Uploads(self.connection, "teachers")
        self.datasets = Uploads(self.connection, "datasets")
        self.files = Uploads(self.connection, "files")
        self.jobs = Jobs(self.connection)
        self.experiments = Experiments(self.connection)
        self.keys = Keys(self.connection)
        self.artifacts = Downloads(self.connection, "artifacts")
        self.previews = Downloads(self.connection, "previews")

    def catalogue(self) -> dict[str, Any]:
        """Every objective, procedure, source, transform, network and task, with its parameters."""
        return dict(self.connection.request("GET", "catalogue").json())

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
