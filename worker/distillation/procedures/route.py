"""Route constrained optimisation: the student follows the teacher's own training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import NetworkChoice, Range
from worker.distillation.procedure import Plan, Procedure, Stage, StageResult
from worker.distillation.stages import companion, no_given_teacher, split_budget, teacher_epochs, teacher_stage

TEACHER = "teacher"


class Route(Procedure):
    """A teacher is trained first and leaves snapshots at equal intervals; the student learns from each in turn, easy to hard.

    Jin et al., "Knowledge distillation via route constrained optimization", arXiv:1904.09149, with anchors at equal
    epoch intervals, the last being the finished teacher. The student keeps its weights from anchor to anchor, while its
    optimiser and its learning rate begin anew. Dividing the job's budget equally among the anchors is ours; with one
    anchor this is plain distillation from the finished teacher, to the bit.
    """

    paper = "arXiv:1904.09149"
    own_teacher = True

    @dataclass(frozen=True)
    class Parameters:
        """The teacher and its route."""

        teacher: Annotated[
            NetworkChoice | None, "The network that is trained first, on labels; null is one like the student's."
        ] = None
        teacher_epochs: Annotated[int | None, Range(ge=1), "For how many epochs; null is the job's number."] = None
        anchors: Annotated[int, Range(ge=1, le=50), "How many of its states the student learns from."] = 4

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        no_given_teacher(plan)
        budgets = split_budget(plan, self.parameters.anchors, "/procedure/anchors")
        number = len(history)
        if number == 0:
            member = companion(plan, self.parameters.teacher, "/procedure/teacher")
            epochs = self._epochs(plan)
            return teacher_stage(TEACHER, member, epochs=epochs[-1], snapshots=tuple(epochs[:-1]))
        if number > self.parameters.anchors:
            return None
        first = number == 1
        student = plan.student if first else replace(plan.student, initial=f"stage:{history[-1].name}")
        return Stage(
            f"anchor_{number}",
            {"student": student},
            self._anchor(number, plan),
            seed_name="distil" if first else None,  # begins as plain distillation does
            **budgets[number - 1],
        )

    def keeps(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The finished teacher."""
        return {TEACHER: f"{TEACHER}/teacher"}

    def _epochs(self, plan: Plan) -> list[int]:
        """After which epochs of the teacher's training the anchors are taken."""
        total = teacher_epochs(self.parameters.teacher_epochs, plan, "/procedure/teacher_epochs")
        count = self.parameters.anchors
        if total < count:
            words = f"{count} anchors need at least {count} epochs of the teacher's training, not {total}"
            raise SpecError([Problem("/procedure/anchors", words)])
        return [number * total // count for number in range(1, count + 1)]

    def _anchor(self, number: int, plan: Plan) -> str:
        epochs = self._epochs(plan)
        snapshot = f"@{epochs[number - 1]}" if number < len(epochs) else ""
        return f"stage:{TEACHER}/teacher{snapshot}"
