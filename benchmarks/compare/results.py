"""The results of a row: means over seeds, and paired differences from another row with the same seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from benchmarks.compare.rows import Row

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Quantile 0.975 of Student's t for 1 to 9 degrees of freedom."""


class Store:
    """Results of finished runs by key, one JSON line each; if a key has several lines, the last one counts."""

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text() if path.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")  # the process was stopped while it wrote a line
        whole = [line for line in text.splitlines() if line.endswith("}")]
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in map(json.loads, whole)}

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["key"]] = row
        with self.path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(row) + "\n")
        self._torn = False


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, and half of its 95 % interval (None for a single pair)."""

    mean: float
    half: float | None

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero, else 0."""
        if self.half is None or abs(self.mean) <= self.half:
            return 0
        return 1 if self.mean > 0 else -1


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """The mean difference over the seeds that both have; None if there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return None
    if len(differences) == 1:
        return Difference(differences[0], None)
    half = T_95[len(differences) - 2] * stdev(differences) / math.sqrt(len(differences))
    return Difference(fmean(differences), half)


@dataclass(frozen=True)
class Measured:
    """A row's runs by seed; `refused` is the engine's error if it refused them."""

    row: Row
    runs: dict[int, dict[str, Any]]
    refused: str | None = None

    @property
    def accuracies(self) -> dict[int, float]:
        return {seed: accuracy_of(self.row, run) for seed, run in self.runs.items()}

    @property
    def mean(self) -> float:
        return fmean(self.accuracies.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds."""
        return stdev(self.accuracies.values()) if len(self.runs) > 1 else None

    def typical(self, name: str) -> float:
        """The median of a metric over seeds, since a busy machine slows some runs down."""
        return median(run[name] for run in self.runs.values())

    @property
    def step_milliseconds(self) -> float:
        return median(1000 * run["processor_seconds"] / run["steps"] for run in self.runs.values())


def accuracy_of(row: Row, run: Mapping[str, Any]) -> float:
    """A run's accuracy, according to the row's `reads`."""
    if row.reads == "student":
        return float(run["accuracy"])
    if row.reads == "cohort":
        return fmean([run["accuracy"], *run["kept"].values()])
    return float(run["kept"][row.reads])


def read(folder: Path, rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Measured]]:
    """A protocol's facts, and its rows with their stored results; both are empty if it was never prepared."""
    if not (folder / "facts.json").exists():
        return {}, {}
    facts = json.loads((folder / "facts.json").read_text())
    kept = Store(folder / "rows.jsonl").rows
    return facts, {row.name: _measured(row, facts["rows"].get(row.name, {}), kept) for row in rows}


def _measured(row: Row, found: Mapping[str, Any], kept: Mapping[str, Any]) -> Measured:
    runs = {int(seed): kept[key] for seed, key in found.get("keys", {}).items() if key in kept}
    refused = found.get("refused") or next((run["refused"] for run in runs.values() if "refused" in run), None)
    return Measured(row, {seed: run for seed, run in runs.items() if "refused" not in run}, refused)
