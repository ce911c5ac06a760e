"""Making stages, for several procedures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.distillation import registry
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import NetworkChoice
from worker.distillation.procedure import Member, Plan, Stage


def companion(plan: Plan, choice: NetworkChoice | None, pointer: str) -> Member:
    """A network that trains like the student: initialised from the seed, without transforms; the student's own network
    if `choice` is None.

    `pointer` is the choice's place in the job's spec.
    """
    member = replace(plan.student, initial=None, transforms=())
    if choice is None:
        return member
    return replace(member, network=choice.network, options=dict(choice.options), network_pointer=pointer)


def ground_truth_of(task: str) -> dict[str, Any]:
    """The objective of a task that learns from the dataset alone, as in a job's spec."""
    return {**registry.find("tasks", task, "/task").ground_truth, "weight": 1.0}


def teacher_stage(name: str, member: Member, task: str, **rest: Any) -> Stage:
    """A stage that trains a teacher on the dataset alone; its place is `stage:NAME/teacher`. `rest`, such as the
    budget, is passed to `Stage`."""
    member = replace(member, objectives=(ground_truth_of(task),))
    return Stage(name, {"teacher": member}, None, phase="training_teacher", **rest)


def teacher_epochs(wanted: int | None, plan: Plan, pointer: str) -> int:
    """The number of epochs of a teacher with snapshots: `wanted`, or the job's number.

    Raises:
        SpecError: `wanted` is None, and the job counts steps.
    """
    epochs = wanted or plan.epochs
    if epochs is None:
        raise SpecError([Problem(pointer, "is required: snapshots are taken after epochs, but the job counts steps")])
    return epochs


def no_given_teacher(plan: Plan) -> None:
    """Check that a job whose procedure trains a teacher has no other teacher.

    Raises:
        SpecError: it has one.
    """
    if plan.teacher is not None:
        raise SpecError([Problem("/teacher", "must be left out: the procedure trains its own teacher")])


def reads_teacher(objective: Mapping[str, Any], pointer: str) -> bool:
    """Whether an objective, written as in a job's spec, reads the teacher's outputs."""
    return bool(registry.make("objectives", objective, pointer, leave_out=("weight",)).active_needs.teacher)


def split_budget(plan: Plan, parts: int, pointer: str) -> list[dict[str, int]]:
    """The plan's epochs or steps in equal parts; a remainder goes to the earlier parts, one each.

    Raises:
        SpecError: there are fewer of them than parts; `pointer` is the place of the number of parts in the job's spec.
    """
    unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
    if total is None or total < parts:
        raise SpecError([Problem(pointer, f"{parts} stages need at least {parts} {unit} of training, not {total}")])
    return [{unit: total // parts + (index < total % parts)} for index in range(parts)]
