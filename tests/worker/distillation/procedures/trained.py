"""Small jobs of a procedure, run in this process."""

import io
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import INPUT, events_of, job_of
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

CE, KD = {"name": "cross_entropy", "weight": 1.0}, {"name": "kd", "weight": 1.0}
LENET = {"network": "lenet5", "options": {}}
HALF = {"network": "lenet5_half", "options": {}}
LEARNS = {"optimizer": "adam", "learning_rate": 3e-3}
"""Training parameters with which a teacher learns something in ten epochs."""


def taught(folder: Path, procedure, teacher: bool = True, **spec) -> Job:
    """A job with cross-entropy and KD unless `spec` overrides them; if its teacher is left out, the spec must
    replace it."""
    job = job_of(folder, procedure=procedure, **({"objectives": [CE, KD], "student": dict(HALF)} | spec))
    if teacher:
        return job
    job.spec["student"].update(classes=4, input=INPUT)
    return Job({**job.values, "teacher": None}, folder)


def run(job: Job) -> Run:
    """The job, run to its end; `run.events` are its events."""
    output = io.StringIO()
    done = Run(job, Channel(output))
    done.execute()
    done.events = events_of(output)
    return done


def run_in(inputs: Path, folder: Path, procedure, **spec) -> Run:
    """A job in a folder of its own, run to its end."""
    shutil.copytree(inputs, folder)
    return run(taught(folder, procedure, **spec))


def weights_of(folder: Path, name: str = "student"):
    return load_file(folder / "output" / f"{name}.safetensors")


def report_of(folder: Path):
    return json.loads((folder / "output" / "report.json").read_text())


def terms_of(done: Run, name: str) -> list[float]:
    """A metric's values by step; small runs report every step."""
    return [event["values"][name] for event in done.events if name in event.get("values", {})]


def with_teacher_of(trained: Path, inputs: Path, folder: Path) -> Path:
    """A folder with the inputs and the teacher that a job has exported."""
    shutil.copytree(inputs, folder)
    shutil.copy(trained / "output" / "teacher.safetensors", folder / "inputs" / "teacher.safetensors")
    return folder
