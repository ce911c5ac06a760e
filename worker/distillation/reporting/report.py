"""The report of a run: what was requested, what was built, and what was and was not measured."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.distillation.budget.result import against_budget, note_of
from worker.distillation.data.images import warnings_of
from worker.distillation.export.measures import cost
from worker.distillation.job import Job
from worker.distillation.networks.ensemble import how_combined
from worker.distillation.procedure import Member
from worker.distillation.reporting.environment import library_versions
from worker.distillation.reporting.finished_run import FinishedRun, KeptNetwork
from worker.distillation.reporting.transformed import notes_of
from worker.distillation.synthesis.estimate import Estimate
from worker.distillation.trainer.lineage import build_network
from worker.distillation.trainer.objective_sum import deploying

NOT_MEASURED = "Accuracy was not measured, because the job has no evaluation dataset."
ON_TRAINING_IMAGES = "The student was evaluated on its training images: expect lower accuracy on other images."
WITHOUT_DATA = (
    "Agreement on synthesised images is the share on which student and teacher predict the same; it is not an accuracy."
)
MORE_SHIPS = (
    "The shipped student is larger than `{network}`: {by} adds modules, so that it has {parameters:,} parameters instead of "
    "{alone:,}. All metrics include them."
)
STOPPED_EARLY = (
    "Training stopped at the time limit of {minutes:g} minutes, after step {step:,} of {steps:,} of stage {stage!r}; "
    "the student ships as it was at that step."
)
RENUMBERED = "its classes have the same names in another order than the job's networks; its labels were matched by name"
NONE_SYNTHESISED = "Student and teacher were not compared on synthesised images, because the source synthesised none."


def report(finished: FinishedRun) -> dict[str, Any]:
    """The content of `report.json`: plain JSON values, with null for values that were not measured or are not finite."""
    job = finished.job
    student, teacher = _student(finished), _teacher(job, finished.teacher)
    budget = against_budget(job.spec["student"], finished.files, job.contract)
    versions = {**finished.environment.get("versions", {}), **library_versions()}
    content = {
        "job": job.values.get("job"),
        "attempt": job.values.get("attempt"),
        "spec": dict(job.spec),
        "student": student,
        "teacher": teacher,
        "teacher_check": finished.teacher_check and dict(finished.teacher_check),
        "transformed": _transformed(finished, student, teacher),
        "budget": budget,
        "initial_weights": initial_weights_of(job),
        "chosen_weights": dict(finished.checkpoint),
        "evaluation": finished.measured.get("evaluation"),
        "without_data": finished.measured.get("without_data"),
        "other_weights": finished.measured.get("other_weights"),
        "previews": list(finished.previews),
        "notes": [*([words] if budget and (words := note_of(budget)) else []), *_notes(finished, student)],
        "stages": [asdict(result) for result in finished.history],
        "procedure": dict(finished.decisions) or None,
        "stopped_early": finished.stopped_early,
        "kept": [_kept(each) for each in finished.kept],
        "seeds": {"seed": job.training.seed, "note": "All random numbers of the run are derived from this seed."},
        "environment": {**finished.environment, "versions": versions},
        "seconds": {"total": finished.seconds, "phases": dict(finished.phase_seconds)},
    }
    return _finite({"summary": _summary(content), **content})


def _student(finished: FinishedRun) -> dict[str, Any]:
    """The student's network, cost and files; and the objectives that add modules to it, if there are any."""
    files = [
        {"name": file["name"], "bytes": Path(file["path"]).stat().st_size, **file.get("measured", {})}
        for file in finished.files
    ]
    student: dict[str, Any] = {
        "network": finished.member.network,
        **cost(finished.student, finished.job.contract),
        "files": files,
    }
    added = added_by(finished.member)
    if not added:
        return student
    with torch.device("meta"):
        alone = build_network(finished.member, finished.job)
    parameters = sum(parameter.numel() for parameter in alone.parameters())
    return student | {"added_by": list(added), "parameters_alone": parameters}


def _transformed(
    finished: FinishedRun, student: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """What was measured of a transformed student, and how many times smaller its files are than the teacher's."""
    if finished.transformed is None:
        return None
    found = dict(finished.transformed)
    if teacher is not None:
        sizes = {file["name"]: file["bytes"] for file in student["files"] if file["name"] in found["times_smaller"]}
        found["times_smaller_than_teacher"] = {name: teacher["file_bytes"] / size for name, size in sizes.items()}
    return found


def _notes(finished: FinishedRun, student: Mapping[str, Any]) -> list[str]:
    """Notes that explain the metrics, and the run's warnings."""
    job = finished.job
    evaluation = finished.measured.get("evaluation")
    notes = [NOT_MEASURED] if evaluation is None else []
    if evaluation is not None and evaluation.get("split") == "train" and _same_images(job):
        notes.append(ON_TRAINING_IMAGES)
    if (without_data := finished.measured.get("without_data")) is not None:
        found = without_data["estimate"]
        notes += [WITHOUT_DATA, *([note] if found and (note := Estimate(**found).note) else [])]
    elif evaluation is None and job.spec.get("dataset") is None:
        notes.append(NONE_SYNTHESISED)
    if "added_by" in student:
        by = ", ".join(student["added_by"])
        notes.append(MORE_SHIPS.format(by=by, alone=student["parameters_alone"], **student))
    if finished.transformed:
        notes += notes_of(finished.transformed)
    if finished.stopped_early:
        notes.append(STOPPED_EARLY.format(**finished.stopped_early))
    return [*notes, *finished.warnings, *_dataset_warnings(job)]


def _dataset_warnings(job: Job) -> list[str]:
    """What the inspections of the job's datasets warned of."""
    paths = {place: path for place in ("dataset", "evaluation") if (path := job.path(place))}
    if paths.get("evaluation") == paths.get("dataset"):
        paths.pop("evaluation", None)
    names = {"dataset": "the dataset", "evaluation": "the dataset of the evaluation"}
    return [
        f"{names[place]}: {words}"
        for place, path in paths.items()
        for words in (*([RENUMBERED] if job.order_of_classes(path) else []), *warnings_of(path))
    ]


def _kept(kept: KeptNetwork) -> dict[str, Any]:
    return {
        "name": kept.name,
        "network": kept.member.network,
        "options": kept.member.options,
        "evaluation": kept.evaluation,
        "file_bytes": Path(kept.files[0]["path"]).stat().st_size,
    }


def added_by(member: Member) -> tuple[str, ...]:
    """Names of the objectives that add modules to the member's deployed network."""
    return tuple(spec["name"] for spec in deploying(member.objectives))


def initial_weights_of(job: Job) -> str:
    """A description of the student's initial weights."""
    given = job.initial_weights
    if given == "random":
        return f"random, from seed {job.training.seed}"
    if given == "teacher":
        return f"slices of the teacher's weights, with noise from seed {job.training.seed}"
    if given == "neuron_merging":
        return "the teacher's weights, with neurons of fully connected layers merged in pairs (arXiv:1507.06149)"
    if file := job.pretrained("/student"):
        return f"the pretrained weights {file.name}"
    return f"the uploaded weights {given}"


def _teacher(job: Job, teacher: nn.Module | None) -> dict[str, Any] | None:
    """The teacher; for an ensemble, the cost of the whole and the members."""
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


def _one_teacher(job: Job, teacher: Mapping[str, Any]) -> dict[str, Any]:
    size = (job.folder / teacher["weights"]).stat().st_size
    return {"id": teacher.get("id"), "network": teacher["network"], "file_bytes": size}


def _same_images(job: Job) -> bool:
    given = job.spec.get("dataset")
    return given is not None and given == (job.spec.get("evaluation") or {}).get("dataset")


def _summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """The most important values."""
    student = content["student"]
    teacher = content["teacher"] or {}
    evaluation = content["evaluation"] or {}
    ours = evaluation.get("student") or {}
    theirs = evaluation.get("teacher") or {}
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
        "main_metric": {
            "name": evaluation["main_metric"],
            "student": ours.get(evaluation["main_metric"]),
            "teacher": theirs.get(evaluation["main_metric"]),
        }
        if evaluation.get("main_metric")
        else None,
        "accuracy": ours.get("accuracy"),
        "teacher_accuracy": theirs.get("accuracy"),
        "agreement": ours.get("agreement"),
        "estimated_agreement": ((content["without_data"] or {}).get("estimate") or {}).get("agreement"),
        "initial_weights": content["initial_weights"],
        "checkpoint": content["chosen_weights"].get("checkpoint"),
        "seconds": content["seconds"]["total"],
        "stopped_early": (content["stopped_early"] or {}).get("reason"),
        "notes": content["notes"],
    }


def _finite(value: Any) -> Any:
    """The same JSON values, with null for infinite numbers and NaN."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
