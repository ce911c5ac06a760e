"""Jobs on two ranks in float64, so that a difference from one process is an error and not rounding.

As a command this is one rank, `python -m tests.worker.distillation.distributed.rank_runs RANK FOLDER CASE…`. It runs the cases one after
another and saves the rank's networks.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import events_of, job_of
from worker.distillation.data.images import Images
from worker.distillation.distributed.division import Division
from worker.distillation.distributed.ranks import ALONE, Ranks, join
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.step import Step
from worker.distillation.trainer.checkpoint import state_of
from worker.distillation.trainer.worker_requests import Stopped

KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}]
RESIDUAL = {"network": "resnet8_cifar", "options": {}}
"""Its BatchNorm layers make a rank's samples depend on those of the other rank."""
DIST = [{"name": "dist"}]
"""Relates the samples of a batch, so that it needs all of them."""
SEARCH = {
    "name": "architecture_search",
    "space": [{"network": "lenet", "options": {"hidden": [8, 16]}}],
    "trials": 3,
    "trial_fraction": 0.5,
    "latency_exponent": 0.0,
}
"""Only rank 0 measures, and with a latency exponent of 0 the measured latency has no effect."""
LAST_SMALLER = {"name": "dataset", "drop_last": False, "augmentation": "standard"}
ODD = {"batch_size": 9, "steps": 9}
"""Of 64 images: batches that do not divide evenly, and one with a single image at the end of each epoch."""


@dataclass(frozen=True)
class Case:
    """A job, and the part of the engine that is disabled while two ranks run it."""

    spec: dict[str, Any] = field(default_factory=dict)
    left_out: str | None = None
    drained: bool = False
    """Rank 0 gets the request to drain after the first step; the run is then resumed."""


CASES = {
    "norms": Case({"objectives": KD, "student": RESIDUAL}),
    "norms_apart": Case({"objectives": KD, "student": RESIDUAL}, left_out="statistics"),
    "drained": Case({"objectives": KD, "student": RESIDUAL}, drained=True),
    "uneven": Case({"objectives": KD, "source": LAST_SMALLER, "training": ODD}),
    "dist": Case({"objectives": DIST}),
    "dist_apart": Case({"objectives": DIST}, left_out="gathering"),
    "relational": Case({"objectives": [{"name": "relational"}]}),
    "embeddings": Case({"task": "embedding", "objectives": [{"name": "triplet"}, {"name": "darkrank"}]}),
    "memory": Case({"objectives": [{"name": "crd", "negatives": 16}]}),
    "mates": Case({"objectives": [{"name": "cross_entropy"}, {"name": "bake"}]}),
    "confidence": Case({"objectives": [{"name": "born_again", "form": "cwtm"}]}),
    "adversary_and_connector": Case({"objectives": [{"name": "conditional_adversarial"}, {"name": "hint"}]}),
    "second_derivatives": Case({"objectives": [{"name": "attention_gradient"}], "student": RESIDUAL}),
    "mirrored": Case({"objectives": [{"name": "attention_gradient", "against": "symmetry"}], "student": RESIDUAL}),
    "second_views": Case(
        {
            "objectives": [{"name": "cross_entropy", "second_view": True}, {"name": "multi_level"}],
            "source": LAST_SMALLER,
            "student": RESIDUAL,
        }
    ),
    "search": Case({"objectives": KD, "procedure": SEARCH, "training": {"steps": 4, "validation_fraction": 0.25}}),
    "cohort": Case(
        {
            "objectives": [{"name": "cross_entropy"}, {"name": "mutual"}],
            "procedure": {"name": "mutual", "update": "sequential"},
            "student": RESIDUAL,
        }
    ),
    "two_stages": Case({"procedure": {"name": "two_stage", "preset": "fitnets"}, "training": {"steps": 6}}),
    "few_bits": Case(
        {"objectives": KD, "student": RESIDUAL, "transforms": [{"name": "factorise"}, {"name": "quantise", "bits": 3}]}
    ),
    "sparse": Case(
        {
            "objectives": KD,
            "student": RESIDUAL,
            "transforms": [{"name": "prune", "begin": 0.0, "end": 0.4}, {"name": "share", "begin": 0.5}],
        }
    ),
    "integers": Case(
        {
            "objectives": KD,
            "student": RESIDUAL,
            "transforms": [{"name": "prune_channels"}, {"name": "int8", "begin": 0.4, "images": 32}],
        }
    ),
    "cached": Case(
        {
            "objectives": KD,
            "student": RESIDUAL,
            "source": {"name": "dataset", "augmentation": "standard", "views": 2},
            "training": {"teacher_answers": "cached", "steps": 6},
        }
    ),
    "few_points": Case({"objectives": KD, "transforms": [{"name": "learned_points", "bits": 3}]}),
    "few_bits_of_activations": Case(
        {"objectives": KD, "student": RESIDUAL, "transforms": [{"name": "quantise", "bits": 3, "activations": 4}]}
    ),
    "ships_more": Case({"objectives": [{"name": "similarity_head"}]}),
    "given": Case(),
}
ORDINARY = ("norms", "norms_apart", "drained", "uneven", "dist", "dist_apart")


@contextmanager
def double_precision() -> Iterator[None]:
    """A context in which networks and images are float64."""
    normalise, before = Images.normalise, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(Images, "normalise", lambda images, image: normalise(images, image).double()):
            yield
    finally:
        torch.set_default_dtype(before)


def without(part: str | None) -> Any:
    """A context that disables a part of the engine which makes the ranks equal to one process."""
    if part == "statistics":
        return patch.object(Division, "statistics", lambda division: nullcontext())
    if part == "gathering":
        return patch.object(Step, "gathered", lambda step, student, teacher: step)
    return nullcontext()


def run_case(name: str, folder: Path, ranks: Ranks = ALONE, resume: str | None = None) -> list[dict[str, Any]]:
    """Run a case in `folder`, optionally from a manifest there; write `final-RANK.safetensors`, and return the events.

    The case `given` is the job whose values are in `job.json` beside the folder.
    """
    case = CASES[name]
    if name == "given":
        job = Job(json.loads((folder.parent / "job.json").read_text()), folder)
    else:
        job = job_of(folder, **case.spec | {"training": {"steps": 3} | case.spec.get("training", {})})
    job = Job({**job.values, "resume": resume}, folder)
    output = io.StringIO()
    with ExitStack() as around:
        around.enter_context(double_precision())
        around.enter_context(without(case.left_out))
        channel = Channel(output)
        if case.drained and ranks.size > 1:
            job = _drained(job, ranks, channel, output)
        _Kept(job, channel, ranks, folder / f"final-{ranks.rank}.safetensors").execute()
    return events_of(output)


def _drained(job: Job, ranks: Ranks, channel: Channel, output: io.StringIO) -> Job:
    """Run the job until it is drained; return the job that resumes it."""
    channel.request = "drain" if ranks.leads else None
    try:
        Run(job, channel, ranks).execute()
    except Stopped:
        channel.request = None
    manifests = [event["manifest"] for event in events_of(output) if event["event"] == "checkpoint"]
    path = job.folder / f"resume-{ranks.rank}.json"
    path.write_text(json.dumps(ranks.broadcast(manifests[-1] if ranks.leads else None)))
    torch.manual_seed(999 + ranks.rank)  # a new process has other random numbers
    return Job({**job.values, "resume": path.name}, job.folder)


class _Kept(Run):
    """Saves this rank's networks at the end of each stage."""

    def __init__(self, job: Job, channel: Channel, ranks: Ranks, path: Path):
        super().__init__(job, channel, ranks)
        self.path = path

    def _end_stage(self, run):
        super()._end_stage(run)
        states = {name: state_of(member.network) for name, member in run.members.items()}
        metrics = {f"metrics/{name}": torch.tensor(value) for name, value in run.last.items()}
        networks = {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()}
        save_file(networks | metrics, self.path)

    def _finish(self):
        return {}  # exports are float32


def main() -> None:
    rank, folder, *cases = sys.argv[1:]
    run_cases(int(rank), Path(folder), cases)


def run_cases(rank: int, folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    ranks = join(rank, 2, folder / "rendezvous", torch.device("cpu"))
    for name in cases:
        if ranks.leads:
            shutil.copytree(folder / "inputs", folder / name / "inputs")
        ranks.broadcast(None)
        run_case(name, folder / name, ranks)


if __name__ == "__main__":
    main()
    os._exit(0)  # as the engine ends; threads of torch can turn a normal exit into an abort
