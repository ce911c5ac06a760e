"""The report of a run: what was asked, what was made, what was measured, and what was not."""

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from worker.distillation.export.measures import cost
from worker.distillation.networks.ensemble import how_combined

if TYPE_CHECKING:
    from worker.distillation.job import Job

LIBRARIES = ("torch", "torchvision", "timm", "safetensors", "numpy", "onnx", "onnxscript", "onnxruntime")
NOT_MEASURED = "No evaluation set was given, so no accuracy was measured."
ON_TRAINING_IMAGES = "The evaluation images are those that the student was trained on: expect less on others."
WITHOUT_DATA = "Agreement on synthesised images says how well the student copies its teacher there; it is no accuracy."
MORE_SHIPS = (
    "More ships than `{network}`: {by} makes {parameters:,} parameters of its {alone:,}, and all are counted here."
)
STOPPED_EARLY = (
    "The training was stopped by its time limit of {minutes:g} minutes, after step {step:,} of {steps:,} of stage {stage!r}: "
    "the student ships as it was."
)
NONE_SYNTHESISED = "The source synthesised no images that student and teacher could be compared on."


def report(
    *,
    job: "Job",
    student: nn.Module,
    teacher: nn.Module | None,
    figures: Mapping[str, Any],
    chosen: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    phases: Mapping[str, float],
    seconds: float,
    environment: Mapping[str, Any],
    network: str | None = None,
    kept: Sequence[Mapping[str, Any]] = (),
    added_by: Sequence[str] = (),
    parameters_alone: int | None = None,
    stopped_early: Mapping[str, Any] | None = None,
    procedure: Mapping[str, Any] | None = None,
    warned: Sequence[str] = (),
) -> dict[str, Any]:
    """What `report.json` holds: plain JSON values, with null for whatever was not measured or is not finite.

    `figures` are `evaluation` (with `student`, `teacher`, `split`, `images`, and the name of the task's own `figure`) and
    `without_data`, each perhaps None; `chosen` says which weights shipped and why; `files` have `name` and `path`; times
    are in seconds; `network` is that of the student, if it is not the one that the spec names; `kept` tells of other
    networks that became artifacts; `added_by` names the objectives that ship more than this network, which has
    `parameters_alone` without them;
    `stopped_early` says by what and where the training was stopped before its end, `procedure` how a procedure decided;
    `warned` holds the run's warnings, which the notes repeat.
    """
    written = [{"name": file["name"], "bytes": Path(file["path"]).stat().st_size} for file in files]
    name = network or job.spec["student"]["network"]
    ours: dict[str, Any] = {"network": name, **cost(student, job.contract), "files": written}
    theirs = _teacher(job, teacher)
    measured = _measured(job, figures)
    if added_by:
        ours |= {"added_by": list(added_by), "parameters_alone": parameters_alone}
        measured["notes"].append(MORE_SHIPS.format(by=", ".join(added_by), alone=parameters_alone, **ours))
    if stopped_early:
        measured["notes"].append(STOPPED_EARLY.format(**stopped_early))
    measured["notes"] += warned
    content = {
        "job": job.values.get("job"),
        "attempt": job.values.get("attempt"),
        "spec": dict(job.spec),
        "student": ours,
        "teacher": theirs,
        "initial_weights": begun_with(job),
        "shipped": dict(chosen),
        **measured,
        "stages": list(stages),
        "procedure": dict(procedure) if procedure else None,
        "stopped_early": stopped_early,
        "kept": list(kept),
        "seeds": {"seed": job.training.seed, "note": "Every random stream of the run is derived from this seed."},
        "environment": {**environment, "versions": {**environment.get("versions", {}), **_versions()}},
        "seconds": {"total": seconds, "phases": dict(phases)},
    }
    return _finite({"summary": _summary(content), **content})


def _teacher(job: "Job", teacher: nn.Module | None) -> dict[str, Any] | None:
    """Who taught; of an ensemble the cost of the whole, and its members."""
    if teacher is None:
        return None
    if job.teacher is None:
        size = (job.folder / "output" / "teacher.safetensors").stat().st_size
        return {"network": job.spec["teacher"]["network"], **cost(teacher, job.contract), "file_bytes": size}
    members = [_one_teacher(job, each) for each in job.teachers]
    whole = cost(teacher, job.teacher_contract)
    if len(members) == 1:
        return members[0] | whole
    size = sum(each["file_bytes"] for each in members)
    how = how_combined(job.spec.get("teacher"))
    return {"network": f"an ensemble of {len(members)}", **whole, "file_bytes": size, "members": members, **how}


def _one_teacher(job: "Job", teacher: Mapping[str, Any]) -> dict[str, Any]:
    size = (job.folder / teacher["weights"]).stat().st_size
    return {"id": teacher.get("id"), "network": teacher["network"], "file_bytes": size}


def begun_with(job: "Job") -> str:
    """What the student's training began with, in words."""
    given = job.initial_weights
    if given == "random":
        return f"drawn afresh from seed {job.training.seed}"
    if given == "teacher":
        return f"slices of the teacher's weights, with noise from seed {job.training.seed}"
    if given == "neuron_merging":
        return "the teacher's weights, neurons of its fully connected layers merged pair by pair (arXiv:1507.06149)"
    return f"the uploaded weights {given}"


def _measured(job: "Job", figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with the sentences that they must be read with."""
    evaluation, without_data = figures.get("evaluation"), figures.get("without_data")
    notes = [NOT_MEASURED] if evaluation is None else []
    if evaluation is not None and evaluation.get("split") == "train" and _same_images(job):
        notes.append(ON_TRAINING_IMAGES)
    if without_data is not None:
        notes.append(WITHOUT_DATA)
    elif evaluation is None and job.spec.get("dataset") is None:
        notes.append(NONE_SYNTHESISED)
    beside, pictures = figures.get("not_shipped"), list(figures.get("pictures", ()))
    told = {"not_shipped": beside, "pictures": pictures, "notes": notes}
    return {"evaluation": evaluation, "without_data": without_data, **told}


def _same_images(job: "Job") -> bool:
    given = job.spec.get("dataset")
    return given is not None and given == (job.spec.get("evaluation") or {}).get("dataset")


def _summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures that people look for first."""
    student, teacher = content["student"], content["teacher"] or {}
    evaluation = content["evaluation"] or {}
    ours, theirs = evaluation.get("student") or {}, evaluation.get("teacher") or {}
    sizes = {file["name"]: file["bytes"] for file in student["files"]}
    return {
        "network": student["network"],
        "parameters": student["parameters"],
        "teacher_parameters": teacher.get("parameters"),
        "bytes": sizes.get("student.safetensors", student["parameter_bytes"]),
        "teacher_bytes": teacher.get("file_bytes"),
        "multiply_adds": student["multiply_adds"],
        "teacher_multiply_adds": teacher.get("multiply_adds"),
        "latency_milliseconds": student["latency"]["milliseconds"],
        "teacher_latency_milliseconds": (teacher.get("latency") or {}).get("milliseconds"),
        "figure": {
            "name": evaluation["figure"],
            "student": ours.get(evaluation["figure"]),
            "teacher": theirs.get(evaluation["figure"]),
        }
        if evaluation.get("figure")
        else None,
        "accuracy": ours.get("accuracy"),
        "teacher_accuracy": theirs.get("accuracy"),
        "agreement": ours.get("agreement"),
        "initial_weights": content["initial_weights"],
        "checkpoint": content["shipped"].get("checkpoint"),
        "seconds": content["seconds"]["total"],
        "stopped_early": (content["stopped_early"] or {}).get("reason"),
        "notes": content["notes"],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _finite(value: Any) -> Any:
    """The same JSON values with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
