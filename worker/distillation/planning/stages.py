"""What several procedures make their stages of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.distillation import registry
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import NetworkChoice
from worker.distillation.procedure import Member, Plan, Stage


def companion(plan: Plan, choice: NetworkChoice | None, pointer: str) -> Member:
    """A network that trains as the student does: fresh from the seed, untransformed, the student's own if none is chosen.

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
    """A stage that trains a teacher on the dataset alone; its place is `stage:NAME/teacher`. `rest`, such as the budget,
    goes to it."""
    member = replace(member, objectives=(ground_truth_of(task),))
    return Stage(name, {"teacher": member}, None, phase="training_teacher", **rest)


def teacher_epochs(wanted: int | None, plan: Plan, pointer: str) -> int:
    """For how many epochs a teacher trains whose snapshots are wanted: so many as are wanted, or as the job's student does.

    Raises:
        SpecError: the job counts steps, and nobody has said.
    """
    epochs = wanted or plan.epochs
    if epochs is None:
        raise SpecError([Problem(pointer, "snapshots are taken after epochs and the job counts steps: say how many")])
    return epochs


def no_given_teacher(plan: Plan) -> None:
    """See that a job whose procedure trains a teacher has no other.

    Raises:
        SpecError: it has one.
    """
    if plan.teacher is not None:
        raise SpecError([Problem("/teacher", "the procedure trains a teacher of its own: leave the job's out")])


def reads_teacher(objective: Mapping[str, Any], pointer: str) -> bool:
    """Whether an objective, written as in a job's spec, reads the teacher's outputs."""
    return bool(registry.make("objectives", objective, pointer, leave_out=("weight",)).active_needs.teacher)


def split_budget(plan: Plan, parts: int, pointer: str) -> list[dict[str, int]]:
    """The plan's epochs or steps in equal parts; where they do not divide, the earlier parts get one more.

    Raises:
        SpecError: there are fewer than parts; `pointer` is the place of their number in the job's spec.
    """
    unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
    if total is None or total < parts:
        raise SpecError([Problem(pointer, f"{parts} stages need at least {parts} {unit} of training, not {total}")])
    return [{unit: total // parts + (index < total % parts)} for index in range(parts)]
