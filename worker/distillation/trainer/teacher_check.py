"""The check of a teacher on the job's own images, before any training.

First whether it reads them as it was trained to: the declared normalisation, the usual ones, and the order of its classes.
Then whether it knows anything of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import read_contract
from worker.distillation.contract_check.comparison import (
    Judgement,
    Measured,
    clearly_better,
    compare,
    in_another_order,
    measured,
    outputs,
    sigma,
    table,
)
from worker.distillation.contract_check.normalisations import altered, declared, distinct, usual
from worker.distillation.data.images import Images
from worker.distillation.data.samplers import generator
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job
from worker.distillation.trainer.inputs import reads_labels

LEAST_IMAGES = 50
"""With fewer images the check is skipped."""
MOST_IMAGES = 512
MOST_COMPARED = 512
"""Images on which normalisations are compared."""
GOOD_ENOUGH = 0.95
"""From this accuracy on nothing can be better by 5 points."""
MOST_AT_ONCE = 128
"""Largest batch."""
BY_NUMBER = "classes matched by number, not by name"
REORDERED = "classes in another order"


def check_teacher(
    job: Job, teacher: nn.Module | None, dataset: Images | None, log: Callable[[str], None]
) -> dict[str, Any] | None:
    """Log how well the teacher does on training images, under the declared contract and others.

    Returns:
        For the report: `images`, `table` (rows with `name`, `accuracy`, perhaps `mean` and `std`), `taken` (the mean and std
        that a job of the contract `auto` goes on with, else None) and `warnings`; for an ensemble `members`, a list of these, and
        all `warnings`. None where the labels do not say.

    Raises:
        SpecError: another contract is clearly better, or the teacher is at chance level.
    """
    if teacher is None or dataset is None or not _predicts_labels(job, dataset):
        return None
    places = torch.linspace(0, len(dataset) - 1, min(MOST_IMAGES, len(dataset))).long()
    sample = dataset.at(places.to(dataset.device))
    if len(sample) < LEAST_IMAGES:
        return None
    found = _check_contracts(job, teacher, sample, log)
    if any(each["taken"] for each in _members_of(found)):
        return found
    assessment = job.task.assess_teacher(teacher, sample.for_teacher, job.training.batch_size)
    log(f"the teacher on training images: {assessment.words}")
    if assessment.chance:
        raise SpecError(
            [Problem("/dataset", f"the teacher is at chance level on these images ({assessment.words})")],
            "Check the teacher's mean, std and channels, and that the dataset's labels are in the teacher's class order.",
        )
    return found


def with_checked_input(job: Job, found: dict[str, Any] | None) -> Job:
    """The job with the normalisation that its check has taken, if it has taken one."""
    for number, each in enumerate(_members_of(found)):
        if taken := each["taken"]:
            job = job.with_teacher_input(number, taken["mean"], taken["std"])
    return job


def _members_of(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What was found of each teacher."""
    return [] if found is None else found.get("members") or [found]


def _predicts_labels(job: Job, dataset: Images) -> bool:
    """Whether the dataset's labels are what the teacher should predict."""
    return reads_labels(job) and job.task.comparable(job.classes, dataset) and not job.transfers(dataset.class_names)


def _check_contracts(job: Job, teacher: nn.Module, sample: Images, log: Callable[[str], None]) -> dict[str, Any] | None:
    """Compare the declared contract of each teacher with the usual ones, where the task says which outputs are right."""
    if job.spec.get("contract", "check") == "trust" or not job.teachers:
        return None
    image, fields = _drawn(sample.for_teacher)
    judgement = job.task.judgement(fields)
    if judgement is None:
        return None
    given = (image, fields[job.task.field], judgement, log)
    if len(job.teachers) == 1:
        return _check_contract(job, 0, teacher, *given)
    found = [_check_contract(job, number, member, *given) for number, member in enumerate(teacher.children())]
    return {"members": found, "warnings": list(dict.fromkeys(words for each in found for words in each["warnings"]))}


def _check_contract(
    job: Job,
    number: int,
    teacher: nn.Module,
    image: Tensor,
    truth: Tensor,
    judgement: Judgement,
    log: Callable[[str], None],
) -> dict[str, Any]:
    whose = "the teacher" if len(job.teachers) == 1 else f"the teacher {job.teachers[number].get('id') or number}"
    rows = _measured(job, number, teacher, image, truth, judgement)
    first = f"{whose} {judgement.said(rows[0].accuracy, len(rows[0].right))}"
    log(f"{first}; by how they are read: {table(rows)}")
    best = max(rows, key=lambda row: row.accuracy)  # the first of equal ones: the declared
    warnings = [MATCHED_BY_NAME] if _order(job) is not None else []
    found = {
        "images": len(rows[0].right),
        "table": [row.row(judgement.name) for row in rows],
        "taken": None,
        "warnings": warnings,
    }
    if not clearly_better(rows[0], best, judgement):
        return found
    used = best.normalisation
    if job.spec.get("contract") != "auto" or used is None or not used.is_plain:
        raise SpecError([Problem("/teacher/input", _problem(first, judgement, rows, best))], _hint(best))
    found["taken"] = {"name": used.name, "mean": list(used.mean), "std": list(used.std)}
    taken = f"{whose} gets another normalisation than its input says, as the contract `auto` asks"
    return found | {"warnings": [*warnings, f"{taken}: {_problem(first, judgement, rows, best)}"]}


MATCHED_BY_NAME = (
    "The dataset has the teacher's classes in another order: they are matched by name, in the teacher's order."
)


def _drawn(sample: Images) -> tuple[Tensor, dict[str, Tensor]]:
    """At most 512 images and what is true of them, in a random order that is always the same."""
    order = torch.randperm(len(sample), generator=generator(0, "contract"))[:MOST_COMPARED].to(sample.device)
    return sample.pixels(order), {name: value[order] for name, value in sample.fields.items()}


def _measured(
    job: Job, number: int, teacher: nn.Module, image: Tensor, truth: Tensor, judgement: Judgement
) -> list[Measured]:
    """The declared reading first."""
    first = declared(read_contract(job.teachers[number]["input"]))
    batch_size = min(MOST_AT_ONCE, job.training.batch_size) if job.task.dense else MOST_AT_ONCE
    few = [measured(teacher, image, judgement.judge, first, batch_size)]
    one_class = job.task.name == "classification"
    order = _order(job) if one_class else None
    chosen = outputs(teacher, image, first).argmax(1) if one_class else truth
    if order is not None:
        numbers = torch.tensor(order, device=truth.device).argsort()
        few.append(Measured(BY_NUMBER, chosen == numbers[truth]))
    if few[0].accuracy > GOOD_ENOUGH:
        return few
    plain = distinct([first, *usual(image)])[1:]
    colour = len(first.mean) == 3
    others = [*plain, *altered([first, *plain] if colour else [first])]
    if one_class:
        few.append(Measured(REORDERED, in_another_order(chosen, truth)))
    return [*compare(teacher, image, judgement, first, others, batch_size=batch_size), *few[1:]]


def _order(job: Job) -> tuple[int, ...] | None:
    path: Path | None = job.path("dataset")
    return None if path is None else job.order_of_classes(path)


def _problem(first: str, judgement: Judgement, rows: list[Measured], best: Measured) -> str:
    gain, again = sigma(rows[0].right, best.right), judgement.again.format(score=f"{best.accuracy:.1%}")
    words = f"{first} as its input says, and {again} with `{best.name}` ({gain:.0f} standard deviations)"
    return f"{words}. All: {table(rows)}"


def _hint(best: Measured) -> str:
    used = best.normalisation
    if best.name == REORDERED:
        return "Number the dataset's classes as the teacher does, or give both class names, which are then matched."
    if used is None:
        return "Give the dataset's class names in the order of its labels, or leave the teacher's names out."
    if not used.is_plain:
        how = "invert them (255 - pixel)" if used.inverted else "reverse their channels"
        return f"The teacher was trained on other images: {how} in the dataset, or set contract to `trust`."
    said = f"mean {list(used.mean)} and std {list(used.std)}"
    return (
        f"Upload the teacher with {said} in its input; or set the job's contract to `auto` to take them, or to `trust`."
    )
