"""Jobs: submit, read, wait, follow, cancel, retry, delete."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillery_client.connection import Connection
from distillery_client.errors import JobEnded
from distillery_client.events import watch
from distillery_client.paging import pages
from distillery_client.records import Job
from distillery_client.waiting import Record, changes, until

FINAL = frozenset({"succeeded", "failed", "cancelled"})


class Jobs:
    """`client.jobs`."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def submit(self, spec: dict[str, Any], idempotency_key: str | None = None) -> Record:
        """Submit a job. By default a new `Idempotency-Key` makes retries of this call safe. Pass your own key to make several
        calls safe too: the same key and spec return the same job.

        Raises:
            InvalidRequest: the spec cannot work; `errors` lists what is wrong with it.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return dict(self.connection.request("POST", "jobs", json=spec, headers=headers).json())

    def chain(self, identifier: str, student: str, idempotency_key: str | None = None) -> Record:
        """Submit a job whose teacher is the student of another job. It has the other job's spec, with the network `student` as
        its student and without its name. If the other job has not ended, the new one waits for it.

        Raises:
            InvalidRequest: the spec cannot work; `errors` lists what is wrong with it.
        """
        spec = {key: value for key, value in self.get(identifier)["spec"].items() if key != "name"}
        chained = {**spec, "teacher": identifier, "student": {"network": student}}
        return self.submit(chained, idempotency_key)

    def validate(self, spec: dict[str, Any], wait_seconds: int = 30) -> Record:
        """Validate a spec without creating a job. In the result, `resolved` is the spec with every default written out,
        `checked` says whether the networks were built too, which takes seconds, and `unchecked` why not.

        Raises:
            InvalidRequest: the spec cannot work; `errors` lists what is wrong with it.
        """
        # marks the POST as idempotent: validation changes nothing
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Prefer": f"wait={wait_seconds}"}
        timeout = wait_seconds + 15
        return dict(
            self.connection.request("POST", "/jobs:validate", json=spec, headers=headers, timeout=timeout).json()
        )

    def get(self, identifier: str) -> Job:
        """A job. In a notebook it shows itself; its `metrics()` are a DataFrame where pandas is there."""
        return Job(self.connection.request("GET", f"jobs/{identifier}").json(), self.connection)

    def report(self, identifier: str, folder: Path = Path()) -> Path:
        """Download the report of a job that has ended into a folder: one HTML file; returns its path.

        Raises:
            Conflict: the job has not ended.
        """
        path = folder / f"{identifier}-report.html"
        path.write_bytes(self.connection.request("GET", f"jobs/{identifier}/report.html").content)
        return path

    def list(self, **filters: Any) -> Iterator[Record]:
        """All jobs, newest first, fetched page by page; `status="running"` filters."""
        return pages(self.connection, "jobs", filters)

    def changes(self, identifier: str, timeout_seconds: float | None = None) -> Iterator[Record]:
        """The job now, and after every change, until it has ended."""
        for job in changes(self.connection, f"jobs/{identifier}", timeout_seconds):
            yield job
            if job["status"] in FINAL:
                return

    def wait(self, identifier: str, timeout_seconds: float | None = None) -> Record:
        """The job once it has succeeded.

        Raises:
            JobEnded: the job failed or was cancelled.
            StillWaiting: the job has not ended after `timeout_seconds`.
        """
        job = until(self.connection, f"jobs/{identifier}", lambda it: it["status"] in FINAL, timeout_seconds)
        if job["status"] != "succeeded":
            raise JobEnded(job)
        return job

    def events(self, identifier: str, **filters: Any) -> Iterator[Record]:
        """The events so far, oldest first."""
        return pages(self.connection, f"jobs/{identifier}/events", filters)

    def watch(self, identifier: str, after: int = 0) -> Iterator[Record]:
        """Follow a job: its events with a number above `after`, until the job has ended. Uses server-sent events, which are
        resumed after a broken connection, or polling if a proxy blocks them."""
        return watch(self.connection, identifier, after)

    def metrics(self, identifier: str, **filters: Any) -> Iterator[Record]:
        """The job's metrics, ordered by name and step; `name` filters."""
        return pages(self.connection, f"jobs/{identifier}/metrics", filters)

    def cancel(self, identifier: str) -> Record:
        """Cancel a queued job, or request the cancellation of a running one. Repeated calls change nothing.

        Raises:
            Conflict: the job has succeeded or failed.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}  # marks the POST as idempotent
        return dict(self.connection.request("POST", f"jobs/{identifier}/cancel", headers=headers).json())

    def retry(self, identifier: str, idempotency_key: str | None = None) -> Record:
        """Submit the spec of a job that has ended as a new job, whose `retry_of` is the id of the old one.

        Raises:
            Conflict: the job has not ended.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return dict(self.connection.request("POST", f"jobs/{identifier}/retry", headers=headers).json())

    def delete(self, identifier: str) -> None:
        self.connection.request("DELETE", f"jobs/{identifier}")
