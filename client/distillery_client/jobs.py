"""Jobs: submit, look, wait, watch, cancel."""

import uuid
from collections.abc import Iterator
from typing import Any

from distillery_client.connection import Connection
from distillery_client.errors import JobEnded
from distillery_client.events import watch
from distillery_client.paging import pages
from distillery_client.waiting import Record, changes, until

FINAL = frozenset({"succeeded", "failed", "cancelled"})


class Jobs:
    """`client.jobs`."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def submit(self, spec: dict[str, Any], idempotency_key: str | None = None) -> Record:
        """Queue a job. A fresh `Idempotency-Key` makes it safe to repeat the request when the answer is lost; pass your
        own to be safe over several calls too: the same key and spec give the same job.

        Raises:
            InvalidRequest: the spec cannot work; `errors` lists what is wrong with it.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return dict(self.connection.request("POST", "jobs", json=spec, headers=headers).json())

    def validate(self, spec: dict[str, Any], wait_seconds: int = 30) -> Record:
        """The spec with every default written out (`resolved`), without making a job; `checked` says whether its
        networks were built too, which takes seconds, and `unchecked` why not.

        Raises:
            InvalidRequest: the spec cannot work; `errors` lists what is wrong with it.
        """
        # changes nothing, so it may be repeated
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Prefer": f"wait={wait_seconds}"}
        timeout = wait_seconds + 15
        return dict(
            self.connection.request("POST", "/jobs:validate", json=spec, headers=headers, timeout=timeout).json()
        )

    def get(self, identifier: str) -> Record:
        return dict(self.connection.request("GET", f"jobs/{identifier}").json())

    def list(self, **filters: Any) -> Iterator[Record]:
        """All jobs, newest first, fetched page by page; `status="running"` filters."""
        return pages(self.connection, "jobs", filters)

    def changes(self, identifier: str, timeout_seconds: float | None = None) -> Iterator[Record]:
        """The job now, and again whenever it has changed, until it has ended."""
        for job in changes(self.connection, f"jobs/{identifier}", timeout_seconds):
            yield job
            if job["status"] in FINAL:
                return

    def wait(self, identifier: str, timeout_seconds: float | None = None) -> Record:
        """The job once it has succeeded.

        Raises:
            JobEnded: it failed or was cancelled.
            StillWaiting: it took longer than `timeout_seconds`.
        """
        job = until(self.connection, f"jobs/{identifier}", lambda it: it["status"] in FINAL, timeout_seconds)
        if job["status"] != "succeeded":
            raise JobEnded(job)
        return job

    def events(self, identifier: str, **filters: Any) -> Iterator[Record]:
        """What has happened so far, oldest first."""
        return pages(self.connection, f"jobs/{identifier}/events", filters)

    def watch(self, identifier: str, after: int = 0) -> Iterator[Record]:
        """What happens to a job, as it happens, from the event after number `after` until the job has ended: by
        server-sent events, resumed where they break off, and by polling where a proxy does not let them through."""
        return watch(self.connection, identifier, after)

    def metrics(self, identifier: str, **filters: Any) -> Iterator[Record]:
        """The job's figures, in order of name and step; `name` filters."""
        return pages(self.connection, f"jobs/{identifier}/metrics", filters)

    def cancel(self, identifier: str) -> Record:
        """End a queued job, or ask for the end of a running one; asking again changes nothing.

        Raises:
            Conflict: it has succeeded or failed.
        """
        headers = {"Idempotency-Key": str(uuid.uuid4())}  # harmless to repeat
        return dict(self.connection.request("POST", f"jobs/{identifier}/cancel", headers=headers).json())

    def retry(self, identifier: str, idempotency_key: str | None = None) -> Record:
        """A new job with the spec of one that has ended; its `retry_of` names that one.

        Raises:
            Conflict: that one has not ended.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return dict(self.connection.request("POST", f"jobs/{identifier}/retry", headers=headers).json())

    def delete(self, identifier: str) -> None:
        self.connection.request("DELETE", f"jobs/{identifier}")
