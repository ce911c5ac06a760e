"""One run of the comparison: a row and a seed as a job of the bare engine, measured in its own process."""

import hashlib
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare.protocols import Files, Protocol
from benchmarks.compare.results import Store
from benchmarks.compare.rows import CE, Row
from worker.distillation import registry
from worker.distillation.errors import EngineError
from worker.distillation.job import Job
from worker.distillation.parameters import parse
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.trainer.job_plan import planned_stages
from worker.distillation.training import Training

MEASURED_AS = 1
"""Raise this whenever the measurement changes, so that older results are not reused."""


@dataclass(frozen=True)
class Order:
    """A job for the engine. Its results are stored under `key`, and are valid as long as `spec` has all values that it had then."""

    row: str
    seed: int
    key: str
    spec: dict[str, Any]
    job: dict[str, Any]


def order(row: Row, seed: int, protocol: Protocol, files: Files) -> Order:
    """The job of a row and a seed.

    The key is a digest of the files and of the spec as the row writes it. Defaults are compared when results are looked
    up (`still_holds`), so a new parameter whose default does not change a method needs no new run.

    Raises:
        SpecError: the engine has no such method, or the method has no such parameter.
    """
    teachers = files.teachers[: row.teachers]
    spec = spec_of(row, seed, protocol)
    used = [files.train[seed], files.test, *teachers]
    parts = [MEASURED_AS, protocol.device, spec, [files.digest(path) for path in used]]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    given = [
        {"network": protocol.teacher, "options": {}, "classes": protocol.classes, "input": protocol.input,
         "weights": str(path.resolve())}
        for path in teachers
    ]  # fmt: skip
    job = {
        "kind": "distill", "job": "job_comparison", "attempt": 1, "spec": with_defaults(spec),
        "teacher": given[0] if len(given) == 1 else None, "teachers": given if len(given) > 1 else None,
        "dataset": str(files.train[seed].resolve()), "evaluation": str(files.test.resolve()), "resume": None,
        "device": protocol.device, "threads": 1, "checkpoint_seconds": 3600,
    }  # fmt: skip
    return Order(row.name, seed, key, job["spec"], job)


def spec_of(row: Row, seed: int, protocol: Protocol) -> dict[str, Any]:
    """A row's job spec, without the methods' defaults."""
    student: dict[str, Any] = {"network": protocol.student, "options": {}, "initial_weights": None}
    if not row.teachers:
        student |= {"classes": protocol.classes, "input": protocol.input}
    spec = {
        "task": "classification", "teacher": row.taught, "student": student, "dataset": "dts_comparison",
        "source": {"name": "dataset", "augmentation": protocol.augmentation, **row.source},
        "objectives": row.objectives, "procedure": row.procedure, "transforms": [],
        "training": {**protocol.training, **row.training, "seed": seed},
        "evaluation": {"split": "test"}, "exports": ["safetensors"],
    }  # fmt: skip
    return json.loads(json.dumps(spec))


def with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with every default of its methods and of the training written out."""
    full = {
        "source": written_out("sources", spec["source"]),
        "objectives": [written_out("objectives", each) for each in spec["objectives"]],
        "procedure": written_out("procedures", spec["procedure"]),
        "training": asdict(Training.from_spec(spec["training"])),
    }
    return json.loads(json.dumps({**spec, **full}))


def spec_without_length(
    network: str, source: Mapping[str, Any], objectives: list[Mapping[str, Any]], training: Mapping[str, Any]
) -> dict[str, Any]:
    """A resolved spec without its length, made here since the service's code may not be installed."""
    return with_defaults(
        {
            "task": "classification", "teacher": "tch_benchmark", "dataset": None, "source": source,
            "student": {"network": network, "options": {}, "initial_weights": "random"}, "objectives": objectives,
            "procedure": {"name": "direct"}, "transforms": [], "training": dict(training),
            "evaluation": {"split": "test"}, "exports": ["safetensors"],
        }
    )  # fmt: skip


def still_holds(then: Any, now: Any) -> bool:
    """Whether a spec still has all earlier values; it may have more."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(name in now and still_holds(value, now[name]) for name, value in then.items())
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(still_holds, then, now))
    return bool(then == now)


def find(given: Order, store: Store) -> dict[str, Any] | None:
    """The stored result of an order, if its methods' defaults have not changed."""
    row = store.rows.get(given.key)
    return row if row and still_holds(row["spec"], given.spec) else None


def written_out(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A method's part of a spec, with its defaults, and with those of the objectives that its parameters name."""
    found = registry.find(kind, values["name"])
    given = {name: value for name, value in values.items() if name not in ("name", "weight")}
    full = {name: _plain(value) for name, value in vars(parse(found.Parameters, given, f"/{kind}")).items()}
    kept = {name: values[name] for name in ("name", "weight") if name in values}
    return kept | full


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping) and value.get("name") in registry.names("objectives"):
        return written_out("objectives", value)
    return value


def measure(given: Order) -> dict[str, Any]:
    """Run an order in this process; returns its results, or `refused` with the engine's error.

    `accuracy` and the other metrics are the student's on the test split. `kept` has the accuracy of the other networks. `terms`
    are the last stage's unweighted losses, averaged over its last steps. `steps` counts the steps of every network.
    `processor_seconds` is the CPU time of the training alone, over all threads. `memory_mb` is the peak of the process above
    what it held before the first stage was built, in MB of 10^6 bytes.
    """
    torch.set_num_threads(1)
    meter = Meter(given.job["device"])
    found = {"row": given.row, "seed": given.seed, "key": given.key, "spec": given.spec}
    with tempfile.TemporaryDirectory(prefix="comparison-") as folder:
        run = Run(Job(given.job, Path(folder)), meter)
        try:
            run.execute()
        except EngineError as error:
            return {**found, "refused": str(error)}
        report = json.loads((Path(folder) / "output" / "report.json").read_text())
    stages = planned_stages(run.lineage.procedure, run.lineage.plan, run.lineage.history)
    steps = sum(done.steps * len(stage.members) for done, stage in zip(run.lineage.history, stages, strict=True))
    metrics = report["evaluation"]["student"]
    return {
        **found, **{name: metrics[name] for name in ("accuracy", "cross_entropy", "agreement") if name in metrics},
        "kept": {each["name"]: each["evaluation"]["accuracy"] for each in report["kept"]},
        "terms": {name: value for name, value in report["stages"][-1]["metrics"].items() if "/" in name},
        "parameters": report["student"]["parameters"], "steps": steps, **meter.measured(),
    }  # fmt: skip


def train_teacher(protocol: Protocol, files: Files, seed: int, folder: Path) -> float:
    """Train the protocol's teacher on the whole training split with the engine; writes `output/student.safetensors`.

    Returns its accuracy on the test split.
    """
    row = Row("teacher", "teacher", "", "", (CE,), teachers=0)
    alike = replace(protocol, student=protocol.teacher, training=protocol.teacher_training)
    job = order(row, seed, alike, replace(files, train={seed: files.whole})).job
    torch.set_num_threads(1)
    return float(Run(Job(job, folder), Meter(protocol.device)).execute()["accuracy"])


class Meter(Channel):
    """Measures a run's training by its events."""

    def __init__(self, device: str):
        super().__init__(io.StringIO())
        self._cuda = device.startswith("cuda")
        self._began: tuple[float, float] | None = None
        self._spent = (0.0, 0.0)

    def say(self, event: str, **fields: Any) -> None:
        if event == "started":
            self._memory = self._reset_peak()
        if event == "phase":
            now = self._clocks()
            if self._began is None:
                self._began = now
            elif fields["phase"] == "evaluating":
                self._spent = (now[0] - self._began[0], now[1] - self._began[1])
                self._most = self._peak()

    def measured(self) -> dict[str, float]:
        processor, wall = self._spent
        memory = (self._most - self._memory) / 1e6
        return {"processor_seconds": round(processor, 3), "seconds": round(wall, 3), "memory_mb": round(memory, 1)}

    def _clocks(self) -> tuple[float, float]:
        if self._cuda:
            torch.cuda.synchronize()
        return time.process_time(), time.monotonic()

    def _reset_peak(self) -> int:
        """Reset the peak memory; returns the present use, in bytes."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")
        return self._peak()

    def _peak(self) -> int:
        """The peak memory, in bytes."""
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        if sys.platform == "linux":
            line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
