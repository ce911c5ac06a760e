"""Running the bare engine on one thread: its job file, methods given on the command line, and a file of results, so that a
script can be stopped and resumed.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ran:
    """The engine's last event, and the run's wall-clock and CPU seconds."""

    last: dict[str, Any]
    seconds: float
    cpu_seconds: float


def job_file(
    spec: dict[str, Any], teacher: dict[str, Any] | None, evaluation: Path, dataset: Path | None = None, **other: Any
) -> dict[str, Any]:
    """The job file that a worker writes for a resolved spec, with an evaluation; `other` overrides the values for a CPU and one thread."""
    return {
        "kind": "distill", "job": "job_benchmark", "attempt": 1, "spec": spec, "teacher": teacher,
        "dataset": str(dataset) if dataset else None, "evaluation": str(evaluation), "resume": None,
        "device": "cpu", "threads": 1, "checkpoint_seconds": 3600,
    } | other  # fmt: skip


def run_engine(job: Path) -> Ran:
    """Run a job file. The engine's events and log are left in the same folder, and its input stays open until it ends."""
    command = [sys.executable, "-m", "worker.distillation", str(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began, used = time.monotonic(), os.times()
    with (
        (job.parent / "events.jsonl").open("w+") as events,
        (job.parent / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=events, stderr=log, text=True, env=environment
        ) as child,
    ):
        child.wait()
        events.seek(0)
        lines = events.read().splitlines()
    seconds, now = time.monotonic() - began, os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    last: dict[str, Any] = {"event": "crashed", "message": f"exit code {child.returncode}"}
    return Ran({**last, **json.loads(lines[-1])} if lines else last, round(seconds, 1), round(cpu, 1))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep_row(path: Path, row: dict[str, Any]) -> None:
    """Print a row and append it to the file."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def method_asked(words: str) -> dict[str, Any]:
    """A method as given on the command line: `NAME`, or `NAME PARAMETER=VALUE …` with values in JSON."""
    name, *given = words.split()
    pairs = (each.split("=", 1) for each in given)
    return {"name": name} | {parameter: json.loads(value) for parameter, value in pairs}


def slug(words: str) -> str:
    """A text as a file name."""
    return re.sub(r"[^\w-]+", "_", words)
