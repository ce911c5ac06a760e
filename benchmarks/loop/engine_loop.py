"""The engine's own loop, stepped by hand: the stage of a job, as a run builds it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.compare.runs import with_defaults
from benchmarks.loop.setting import LEARNING_RATE, MOMENTUM, PADDING, TEMPERATURE, WEIGHT_DECAY, Setting
from worker.distillation.distributed.ranks import ALONE
from worker.distillation.job import Job
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.inputs import load_inputs
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.stage_context import StageContext
from worker.distillation.trainer.stage_run import StageRun

REPORT_EVERY = 50
"""Steps between two readings of the metrics, as in a run."""
OBJECTIVES = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": TEMPERATURE}]


def write_inputs(given: Setting, folder: Path) -> None:
    """The images and the teacher as a job's inputs."""
    teacher, _ = given.networks()
    names = json.dumps([f"class {number}" for number in range(given.classes)])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {"train.image": given.image, "train.label": given.label}, folder / "dataset.safetensors", {"class_names": names}
    )
    save_file(teacher.state_dict(), folder / "teacher.safetensors")


def job_of(
    given: Setting, folder: Path, source: dict[str, Any], training: dict[str, Any], device: str = "cpu", **values: Any
) -> Job:
    """The job of a stage without end on the inputs in `folder`."""
    spec = with_defaults(
        {
            "task": "classification", "teacher": "tch_benchmark", "dataset": "dts_benchmark",
            "student": {"network": given.student, "options": {}, "initial_weights": "random"},
            "source": {"name": "dataset", "padding": PADDING, **source}, "objectives": OBJECTIVES,
            "procedure": {"name": "direct"}, "transforms": [], "evaluation": None, "exports": ["safetensors"],
            "training": {
                "steps": 1_000_000, "batch_size": given.batch_size, "optimizer": "sgd", "learning_rate": LEARNING_RATE,
                "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "nesterov": False, "schedule": "constant", **training,
            },
        }
    )  # fmt: skip
    teacher = {
        "network": given.teacher, "options": {}, "classes": given.classes, "class_names": [], "input": given.input,
        "weights": "teacher.safetensors",
    }  # fmt: skip
    return Job(
        {
            "kind": "distill", "spec": spec, "teacher": teacher, "dataset": "dataset.safetensors", "evaluation": None,
            "device": device, **values,
        },
        folder,
    )  # fmt: skip


def stage_of(job: Job) -> StageRun:
    """The first stage of a job, ready for its first step."""
    device = job.device()
    checkpoints = Checkpoints(job.folder / "checkpoints")
    lineage = Lineage(job, checkpoints, device)
    context = StageContext.of(job, load_inputs(job, device, evaluates=False).dataset, device, ALONE)
    stage = lineage.next()
    assert stage is not None
    run = StageRun(
        stage,
        networks={name: lineage.initial(stage, name) for name in stage.members},
        teacher=lineage.teacher_of(stage),
        context=context.for_stage(stage.training, 0),
    )
    run.prepare()
    run.cache_answers(checkpoints)
    return run


def engine(given: Setting, folder: Path, source: dict[str, Any], training: dict[str, Any]) -> Callable[[], None]:
    """One step of the engine, with its metrics read as often as in a run."""
    torch.manual_seed(0)
    run = stage_of(job_of(given, folder, source, training))

    def step() -> None:
        run.advance()
        if run.number % REPORT_EVERY == 0:
            run.metrics()

    return step
