"""Experiments: several jobs from one request, followed and compared together."""

import uuid
from collections.abc import Iterator
from typing import Any

from distillery_client.connection import Connection
from distillery_client.paging import pages
from distillery_client.waiting import Record, changes, until


class Experiments:
    """`client.experiments`."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def submit(self, spec: dict[str, Any], idempotency_key: str | None = None) -> Record:
        """Submit an experiment: `name`, a `base` spec, and a `grid` or `variants`. By default a new `Idempotency-Key` makes
        retries of this call safe.

        Raises:
            InvalidRequest: a job cannot work; `errors` lists the problems of all jobs, and nothing was queued.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return dict(self.connection.request("POST", "experiments", json=spec, headers=headers).json())

    def get(self, identifier: str) -> Record:
        return dict(self.connection.request("GET", f"experiments/{identifier}").json())

    def list(self, **filters: Any) -> Iterator[Record]:
        """All experiments, newest first, fetched page by page; `label="team:vision"` filters."""
        return pages(self.connection, "experiments", filters)

    def jobs(self, identifier: str, **filters: Any) -> Iterator[Record]:
        """The jobs of an experiment, newest first; `status="failed"` filters."""
        return pages(self.connection, f"experiments/{identifier}/jobs", filters)

    def changes(self, identifier: str, timeout_seconds: float | None = None) -> Iterator[Record]:
        """The experiment now, and after every change, until all of its jobs have ended."""
        for experiment in changes(self.connection, f"experiments/{identifier}", timeout_seconds):
            yield experiment
            if experiment["status"] == "ended":
                return

    def wait(self, identifier: str, timeout_seconds: float | None = None) -> Record:
        """The experiment once all of its jobs have ended, in whatever way.

        Raises:
            StillWaiting: they have not ended after `timeout_seconds`.
        """
        path = f"experiments/{identifier}"
        return until(self.connection, path, lambda record: record["status"] == "ended", timeout_seconds)

    def table(
        self, identifier: str, metric: str | None = None, baseline: str | None = None, best: str | None = None
    ) -> Record:
        """Mean, spread and number of jobs by variant, with differences from the baseline, paired by seed.

        Raises:
            InvalidRequest: no job has the metric, or there is no such variant.
        """
        query = _query(metric, baseline, best)
        return dict(self.connection.request("GET", f"experiments/{identifier}/table", params=query).json())

    def table_text(
        self,
        identifier: str,
        format: str,
        metric: str | None = None,
        baseline: str | None = None,
        best: str | None = None,
    ) -> str:
        """The same table as text; `format` is `csv` or `markdown`."""
        query = _query(metric, baseline, best) | {"format": format}
        return self.connection.request("GET", f"experiments/{identifier}/table", params=query).text

    def cancel(self, identifier: str) -> Record:
        """Cancel all jobs that have not ended. Repeated calls change nothing."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}  # marks the POST as idempotent
        return dict(self.connection.request("POST", f"experiments/{identifier}/cancel", headers=headers).json())

    def delete(self, identifier: str) -> None:
        """Delete an experiment and its jobs.

        Raises:
            Conflict: a job has not ended.
        """
        self.connection.request("DELETE", f"experiments/{identifier}")


def _query(metric: str | None, baseline: str | None, best: str | None) -> dict[str, str]:
    given = {"metric": metric, "baseline": baseline, "best": best}
    return {name: value for name, value in given.items() if value is not None}
