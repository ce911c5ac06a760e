"""Event files of TensorBoard with the metrics of a job."""

import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from distillery_client.client import Client
from distillery_client.scalar_events import record, scalar, version


class EventFile:
    """A file of events in a folder, which TensorBoard reads while it grows."""

    def __init__(self, folder: Path, name: str = "distillery"):
        folder.mkdir(parents=True, exist_ok=True)
        at = time.time()
        self.path = folder / f"events.out.tfevents.{at:.0f}.{name}"
        self._file: BinaryIO = self.path.open("wb")
        self._file.write(record(version(at)))

    def add(self, rows: Iterable[tuple[str, int, float | None, float]]) -> None:
        """Add values: name, step, value and time. A value that was infinite or NaN is left out."""
        for name, step, value, at in rows:
            if value is not None:
                self._file.write(record(scalar(name, step, value, at)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def follow(client: Client, identifier: str, folder: Path) -> Path:
    """Write the metrics of a job into `folder/JOB`, those so far and those to come, until the job has ended; returns the
    folder."""
    target = folder / identifier
    written: dict[str, int] = {}
    file = EventFile(target)
    try:
        for _ in client.jobs.changes(identifier):
            oldest = min(written.values(), default=-1)
            rows = list(client.jobs.metrics(identifier, after=oldest, limit=10_000))
            fresh = [row for row in rows if row["step"] > written.get(row["name"], -1)]
            file.add((row["name"], row["step"], row["value"], _seconds(row["created_at"])) for row in fresh)
            for row in fresh:
                written[row["name"]] = max(written.get(row["name"], -1), row["step"])
    finally:
        file.close()
    return target


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
