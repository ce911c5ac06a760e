"""The overhead of the service: how soon a job trains, and how much slower it trains than with the bare engine.

    python -m benchmarks.service.cost [--sets embedded servers] [--parts starts pairs] [--starts 7] [--pairs 7] [--seconds 60]

Starts a service of each kind (SQLite, a folder and a queue of files; Postgres, Redis and an S3 server) with its own data
folder, uploads a LeNet-5 and 2,000 images of 32 × 32, and distils LeNet-5-half by KD at batch 128.

    starts  short jobs, one after the other, on an idle service: seconds from sending `POST /v1/jobs` to each event of
            the job, by the database's clock, and until a client that long-polls has seen it. Requires of the medians, as
            seen by the client: `running` under 2 s, the first training step under 8 s.
    pairs   the same job file run with the command `python -m worker.distillation` and as a job, in turn, with the same spec,
            seed and threads; which goes first alternates. *Training* is the phase `distilling` of the engine's report: from
            before the first step until the evaluation, by the engine's own clock. *Whole* is from the start of the command
            to its exit, and from sending the job until the client sees `succeeded`. *Processor* is the CPU time of the API
            and the workers, without engines, in that time (Linux). Requires that the median of the paired differences
            of training, relative to the bare engine's, is under 3 %.

The engine has one thread, so that on two cores the service and its client have the other; nothing is pinned. A client
long-polls the job meanwhile, as users do. Each row is appended to `results/service_cost.jsonl` as it is measured. Earlier
pairs in that file with the same `--seconds` count: remove the file to start over. Writes `results/service_cost.json`. The
exit code is 0 if all requirements of the parts that ran hold.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.mnist.digits import RESULTS
from benchmarks.service import sets
from distillery_client import Client

RUNNING_SECONDS = 2.0
STEP_SECONDS = 8.0
MOST_SHARE = 0.03
SHORT_STEPS, TRIAL_STEPS = 50, 500
MARKS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "checked": lambda event: "has been checked" in event["message"],
    "running": lambda event: event["type"] == "status" and (event["data"] or {}).get("status") == "running",
    "engine": lambda event: "engine has started" in event["message"],
    "training": lambda event: event["type"] == "phase" and (event["data"] or {}).get("phase") == "distilling",
    "first_step": lambda event: event["type"] == "progress",
}
"""The event of a job that gives each mark."""


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"seconds": arguments.seconds, "threads": 1, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory(prefix="service-cost-", dir=arguments.results) as folder:
        images, teacher = sets.write_inputs(Path(folder))
        for name in arguments.sets:
            with sets.running(name, Path(folder), threads=1) as (client, supervisor):
                bench = Bench(name, client, supervisor, images, teacher, arguments.results)
                results[name] = {part: PARTS[part](bench, arguments) for part in arguments.parts}
    (arguments.results / "service_cost.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(results[name][part]["holds"] for name in arguments.sets for part in arguments.parts) else 1


class Bench:
    """A service with the inputs uploaded, and the same job with the bare engine."""

    def __init__(self, name: str, client: Client, supervisor: int, images: Path, teacher: Path, results: Path):
        self.name = name
        self.client = client
        self._supervisor = supervisor
        self._images = images
        self._teacher = teacher
        self._results = results
        self._ids = {
            "teacher": client.teachers.send(teacher, **sets.TEACHER)["id"],
            "dataset": client.datasets.send(images)["id"],
        }

    def submit(self, steps: int) -> dict[str, Any]:
        spec = {
            "student": {"network": "lenet5_half"},
            "training": {"steps": steps, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.01, "seed": 5},
            "exports": ["safetensors"],
        }
        return self.client.jobs.submit(spec | self._ids)

    def through_service(self, steps: int) -> dict[str, float]:
        """Seconds of training and in total, and the CPU seconds of the API and the workers."""
        started_at, used = time.monotonic(), sets.processor_seconds(self._supervisor)
        job = self.submit(steps)
        self.client.jobs.wait(job["id"])
        whole = time.monotonic() - started_at
        with tempfile.TemporaryDirectory() as folder:
            report = self.client.artifacts.download(job["id"], "report.json", Path(folder))
            self.resolved = json.loads(report.read_text())["spec"]
            used = sets.processor_seconds(self._supervisor) - used
            return {"training": _training(report), "whole": whole, "processor": used}

    def bare(self, steps: int) -> dict[str, float]:
        """The same for the engine's command, with the spec of a job that the service has run."""
        with tempfile.TemporaryDirectory(dir=self._results) as name:
            folder = Path(name)
            _lay_out(folder, self.resolved, steps, self._images, self._teacher)
            started_at = time.monotonic()
            command = [sys.executable, "-P", "-m", "worker.distillation", "job.json"]
            environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(command, cwd=folder, env=environment, check=True, **pipes)
            return {"training": _training(folder / "output" / "report.json"), "whole": time.monotonic() - started_at}

    def kept(self) -> list[dict[str, Any]]:
        """The pairs measured earlier on this kind of service."""
        path = self._results / "service_cost.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if row["set"] == self.name and "pair" in row]

    def keep(self, row: Mapping[str, Any]) -> None:
        """Print a row and append it to the file, so that no row is lost if the script is stopped."""
        line = json.dumps({"set": self.name, **row})
        print(line, flush=True)
        with (self._results / "service_cost.jsonl").open("a") as file:
            file.write(line + "\n")


def starts(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    bench.client.jobs.wait(bench.submit(SHORT_STEPS)["id"])  # warms the service up
    rows = []
    for _ in range(arguments.starts):
        time.sleep(1.0)
        rows.append(_start(bench))
        bench.keep(rows[-1])
    medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    print(f"{bench.name}, medians of {len(rows)}: {medians}", flush=True)
    holds = medians["running_seen"] < RUNNING_SECONDS and medians["first_step_seen"] < STEP_SECONDS
    return {"rows": rows, "medians": medians, "holds": holds}


def _start(bench: Bench) -> dict[str, float]:
    sent, started_at = time.time(), time.monotonic()
    job = bench.submit(SHORT_STEPS)
    row = {"accepted_seen": time.monotonic() - started_at}
    for shown in bench.client.jobs.changes(job["id"]):
        if shown["status"] == "running":
            row.setdefault("running_seen", time.monotonic() - started_at)
        if shown["progress"]:
            row.setdefault("first_step_seen", time.monotonic() - started_at)
    row["succeeded_seen"] = time.monotonic() - started_at
    events = list(bench.client.jobs.events(job["id"]))
    for mark, known in MARKS.items():
        event = next(event for event in events if known(event))
        row[mark] = datetime.fromisoformat(event["created_at"]).timestamp() - sent
    return {name: round(seconds, 3) for name, seconds in row.items()}


def pairs(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    bench.through_service(SHORT_STEPS)
    rows = [row for row in bench.kept() if row.get("seconds") == arguments.seconds]
    if rows:
        steps = rows[0]["steps"]
    else:
        steps = max(1, round(TRIAL_STEPS * arguments.seconds / bench.bare(TRIAL_STEPS)["training"]))
    for number in range(len(rows), arguments.pairs):
        ways = {"bare": bench.bare, "service": bench.through_service}
        row: dict[str, Any] = {"pair": number, "seconds": arguments.seconds, "steps": steps}
        for way in sorted(ways, reverse=bool(number % 2)):
            row[way] = ways[way](steps)
        row["training_share"] = row["service"]["training"] / row["bare"]["training"] - 1
        row["whole_seconds"] = row["service"]["whole"] - row["bare"]["whole"]
        rows.append(row)
        bench.keep(row)
    shares = [row["training_share"] for row in rows]
    whole = statistics.median(row["whole_seconds"] for row in rows)
    median, used = statistics.median(shares), statistics.median(row["service"]["processor"] for row in rows)
    print(
        f"{bench.name}, {len(rows)} pairs of {steps} steps: training {median:+.2%} ({min(shares):+.2%} to {max(shares):+.2%}),"
        f" whole {whole:+.2f} s; API and workers used {used:.2f} s of CPU time",
        flush=True,
    )
    found = {"rows": rows, "training_share": median, "whole_seconds": whole, "processor_seconds": used}
    return {**found, "holds": median < MOST_SHARE}


PARTS = {"starts": starts, "pairs": pairs}


def _training(report: Path) -> float:
    return float(json.loads(report.read_text())["seconds"]["phases"]["distilling"])


def _lay_out(folder: Path, spec: Mapping[str, Any], steps: int, images: Path, teacher: Path) -> None:
    """A job file as the service writes it, without the sandbox, and its inputs."""
    from worker.distillation.uploads.inspect_upload import inspect

    (folder / "inputs").mkdir()
    (folder / "output").mkdir()
    shutil.copy(teacher, folder / "inputs" / "teacher.safetensors")
    found = inspect({"kind": "dataset", "upload": str(images), "options": {}}, folder)
    (folder / found["path"]).rename(folder / "inputs" / "dataset.safetensors")
    described = {**sets.TEACHER, "options": {}, "class_names": [], "weights": "inputs/teacher.safetensors"}
    whole = {**spec, "training": {**spec["training"], "steps": steps}}
    job = {"kind": "distill", "job": "bare", "attempt": 1, "spec": whole, "teacher": described, "device": "cpu"}
    paths = {"dataset": "inputs/dataset.safetensors", "evaluation": None, "initial_weights": None, "resume": None}
    (folder / "job.json").write_text(json.dumps(job | paths | {"threads": 1, "checkpoint_seconds": 30}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=sets.SETS, default=list(sets.SETS))
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--starts", type=int, default=7, help="number of short jobs")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="approximate seconds of training with the bare engine"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
