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
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from distillery_client.client import Client
from distillery_client.uploads import Progress as Report


@contextmanager
def transfer(console: Console, what: str) -> Iterator[Report]:
    """A bar for bytes; yields the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def follow(client: Client, identifier: str, console: Console) -> dict[str, Any]:
    """Show a job live, its log above the bar, until it has ended; the job's record then."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) as bars:
        task = bars.add_task("queued", total=1.0, figures="")
        for event in client.jobs.watch(identifier):
            data = event.get("data") or {}
            if event["type"] == "progress":
                bars.update(task, completed=data.get("fraction") or 0.0)
            elif event["type"] == "metrics":
                bars.update(task, figures=figures(data.get("values") or data))
            elif event["type"] in ("status", "phase"):
                bars.update(task, description=str(data.get("phase") or data.get("status") or event["message"]))
            elif event["type"] == "log":
                bars.console.print(event["message"], markup=False)
    return client.jobs.get(identifier)


def figures(values: dict[str, Any], most: int = 3) -> str:
    """The first few figures of a metrics event, in one line."""
    shown = [f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)]
    return "  ".join(shown[:most])
