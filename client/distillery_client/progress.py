"""Progress bars for transfers and for jobs."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
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
from rich.text import Text

from distillery_client.client import Client
from distillery_client.curves import drawing
from distillery_client.uploads import Progress as Report


@contextmanager
def transfer(console: Console, what: str) -> Iterator[Report]:
    """A progress bar for bytes; yields the function that updates it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


REDRAW_SECONDS = 0.5


class _CurvedProgress(Progress):
    """A progress bar with curves below it."""

    curves = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.curves:
            yield Text.from_ansi(self.curves)


class _LiveCurves:
    """The curves of a job so far, drawn again at most twice a second."""

    def __init__(self, client: Client, identifier: str, bars: _CurvedProgress, wanted: Sequence[str]):
        self._bars, self._wanted, self._drawn_at = bars, wanted, 0.0
        self._points: dict[str, list[tuple[int, float | None]]] = {}
        for row in client.jobs.metrics(identifier, limit=10_000):
            self._points.setdefault(row["name"], []).append((row["step"], row["value"]))
        self.draw()

    def add(self, metrics: dict[str, Any]) -> None:
        for name, newest in metrics.items():
            points = self._points.setdefault(name, [])
            while points and points[-1][0] >= newest["step"]:  # computed again after a resume
                points.pop()
            points.append((newest["step"], newest["value"]))
        if time.monotonic() - self._drawn_at >= REDRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._bars.curves = drawing(self._points, self._bars.console.width, self._wanted)


def follow(
    client: Client, identifier: str, console: Console, curves: bool = False, metrics: Sequence[str] = ()
) -> dict[str, Any]:
    """Show the progress of a job, with its log above the bar, until it has ended; returns the job's record.

    With `curves`, the curves of `metrics` are below the bar, or of the most telling ones if none is named.
    """
    text, newest = TextColumn("{task.description}"), TextColumn("[dim]{task.fields[metrics]}")
    columns = (SpinnerColumn(), text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), newest)
    with _CurvedProgress(*columns, console=console) as bars:
        task = bars.add_task("queued", total=1.0, metrics="")
        live = _LiveCurves(client, identifier, bars, metrics) if curves else None
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
                if live is not None:
                    live.add(data)
        if live is not None:
            live.draw()
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
