"""Apprentice: a network of low precision learns from one of full precision, in three schemes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import NetworkChoice, Range
from worker.distillation.planning.stages import companion, ground_truth_of, no_given_teacher
from worker.distillation.procedure import Member, Plan, Procedure, Stage, StageResult

TOGETHER, FULL, LOW = "together", "full_precision", "low_precision"


class Apprentice(Procedure):
    """Trains a student whose transforms lower its precision beside a teacher of full precision.

    Mishra and Marr, "Apprentice", arXiv:1711.05852. Scheme `a`: both train together from scratch, the teacher on labels with the
    paper's weight of 1, the student on the job's objectives: by default labels and the teacher's predictions with 0.5 each. No gradient flows to the teacher.
    Scheme `b`: the student trains from scratch beside the job's trained teacher, on the job's objectives. Scheme `c`: the student first
    trains in full precision on the job's objectives, then is transformed and trained on at a lower learning rate. Without transforms
    there is nothing to lower, so the job is refused.
    """

    paper = "arXiv:1711.05852"
    when = {
        ("scheme", "a"): {
            "cohort": True,
            "objective_defaults": ({"name": "cross_entropy", "weight": 0.5}, {"name": "mutual", "weight": 0.5}),
        }
    }

    @dataclass(frozen=True)
    class Parameters:
        """The scheme, and what the schemes `a` and `c` need."""

        scheme: Annotated[Literal["a", "b", "c"], "Which of the paper's schemes."] = "b"
        teacher: Annotated[
            NetworkChoice | None, "Network of the teacher of scheme `a`. If null: the student's own, in full precision."
        ] = None
        full_share: Annotated[float, Range(gt=0, lt=1), "Share of the training in full precision, in scheme `c`."] = 0.5
        low_rate: Annotated[
            float, Range(gt=0, le=1), "Factor of the learning rate after the precision is lowered, in scheme `c`. Ours."
        ] = 0.1

    def check(self, plan: Plan) -> None:
        super().check(plan)
        if not plan.student.transforms:
            words = "must name a transform: the procedure `apprentice` trains a student of low precision"
            raise SpecError([Problem("/transforms", words)], "Add `quantise` or `int8`.")
        if self.settings.scheme == "b" and plan.teacher is None:
            raise SpecError([Problem("/teacher", "is required: scheme `b` of `apprentice` has a trained teacher")])
        if self.settings.scheme == "a":
            no_given_teacher(plan)
        elif self.settings.teacher is not None:
            words = "is for scheme `a`; the others have the job's teacher"
            raise SpecError([Problem("/procedure/teacher", words)])

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        scheme = self.settings.scheme
        budget: dict[str, Any] = {"epochs": plan.epochs, "steps": plan.steps}
        if scheme == "b":
            return None if history else Stage("distil", {"student": plan.student}, plan.teacher, **budget)
        if scheme == "a":
            return None if history else Stage(TOGETHER, self._together(plan), None, **budget)
        return self._in_turn(history, plan)

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The teacher of scheme `a`, and the student of full precision of scheme `c`."""
        if self.settings.scheme == "a":
            return {"teacher": f"{TOGETHER}/teacher"}
        return {FULL: f"{FULL}/student"} if self.settings.scheme == "c" else {}

    def _together(self, plan: Plan) -> dict[str, Member]:
        teacher = companion(plan, self.settings.teacher, "/procedure/teacher")
        return {"teacher": replace(teacher, objectives=(ground_truth_of(plan.task),)), "student": plan.student}

    def _in_turn(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        """First full precision, then low precision from its weights."""
        full, low = _shares(plan, self.settings.full_share)
        if not history:
            return Stage(
                FULL, {"student": replace(plan.student, transforms=())}, plan.teacher, **full, seed_name="distil"
            )
        if len(history) > 1:
            return None
        member = replace(plan.student, initial=f"stage:{FULL}/student")
        rate = {"learning_rate": plan.learning_rate * self.settings.low_rate, "warm_up_steps": 0}
        return Stage(LOW, {"student": member}, plan.teacher, **low, training=rate)


def _shares(plan: Plan, share: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan's steps or epochs in two parts.

    Raises:
        SpecError: there is only one.
    """
    unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
    if total is None or total < 2:
        raise SpecError([Problem("/procedure/scheme", f"`c` has two stages, which need at least 2 {unit} of training")])
    first = min(max(round(share * total), 1), total - 1)
    return {unit: first}, {unit: total - first}
