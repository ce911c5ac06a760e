"""Progress bars for transfers and for jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from distillery_client.client import Client
from distillery_client.uploads import Progress as Report


@contextmanager
def transfer(console: Console, what: str) -> Iterator[Report]:
    """A progress bar for bytes; yields the function that updates it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def follow(client: Client, identifier: str, console: Console) -> dict[str, Any]:
    """Show the progress of a job, with its log above the bar, until it has ended; returns the job's record."""
    text, metrics = TextColumn("{task.description}"), TextColumn("[dim]{task.fields[metrics]}")
    columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), metrics)
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("queued", total=1.0, metrics="")
        for event in client.jobs.watch(identifier):
            data = event["data"] or {}
            if event["type"] in ("status", "phase"):
                bars.update(task, description=str(data.get("phase") or data.get("status")))
            elif event["type"] == "progress":
                bars.update(task, completed=data.get("fraction") or 0.0)
            elif event["type"] == "log" and event["level"] != "info":
                bars.console.print(event["message"], markup=False, highlight=False)
            elif event["type"] == "metrics":
                bars.update(task, metrics=summary_of(data))
        job = client.jobs.get(identifier)
        if job["status"] == "succeeded":
            bars.update(task, completed=1.0)
        bars.update(task, description=job["status"], metrics=summary_of(job["metrics"]))
    return job


def summary_of(metrics: dict[str, Any], most: int = 2) -> str:
    """The newest values of at most `most` metrics in one line; names without a slash come before others (`kd/loss`)."""
    known = {name: newest["value"] for name, newest in metrics.items() if newest["value"] is not None}
    known.pop("learning_rate", None)
    chosen = sorted(known, key=lambda name: ("/" in name, name))[:most]
    return "  ".join(f"{name} {known[name]:.4g}" for name in chosen)
