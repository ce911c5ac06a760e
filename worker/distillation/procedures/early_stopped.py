"""Early-stopped distillation: the student is weaned off its teacher, or taught by one that has not finished its training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import NetworkChoice, Range
from worker.distillation.planning.stages import (
    companion,
    ground_truth_of,
    no_given_teacher,
    reads_teacher,
    teacher_epochs,
    teacher_stage,
)
from worker.distillation.procedure import Plan, Procedure, Stage, StageResult

TEACHER = "teacher"


class EarlyStopped(Procedure):
    """Objectives that read the teacher are switched off part-way, and a teacher that is trained here may teach half-trained.

    Cho, Hariharan, "On the efficacy of knowledge distillation", arXiv:1910.01348, with both of its interventions: `stop`
    ends the distillation while the other objectives go on with the same optimiser and learning rate, and `teacher_stop`
    takes the teacher's weights from an earlier epoch of its training, since a less trained one is easier to mimic. The
    default of `stop` is ours.
    """

    paper = "arXiv:1910.01348"
    own_teacher = True

    @dataclass(frozen=True)
    class Parameters:
        """When to stop."""

        stop: Annotated[
            float, Range(gt=0, le=1), "Share of the student's training after which it has no teacher; 1 is never."
        ] = 0.5
        teacher: Annotated[
            NetworkChoice | None, "A teacher that is trained first, on labels, where the job gives none."
        ] = None
        teacher_epochs: Annotated[
            int | None, Range(ge=1), "For how many epochs it trains; null is the job's number."
        ] = None
        teacher_stop: Annotated[
            float, Range(gt=0, le=1), "Share of those epochs whose weights teach; 1 is the finished teacher."
        ] = 1.0

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        student = replace(plan.student, objectives=self._until_stop(plan.student.objectives, plan.task))
        if self.settings.teacher is None:
            if plan.teacher is None or self.settings.teacher_stop < 1:
                words = "name the network of a teacher that is trained first, or give the job a finished one"
                raise SpecError([Problem("/procedure/teacher", words)])
        else:
            no_given_teacher(plan)
            if not history:
                return self._teacher_stage(plan)
        if history and history[-1].name != TEACHER:
            return None
        teacher = self._teacher(plan) if history else plan.teacher
        return Stage("distil", {"student": student}, teacher, epochs=plan.epochs, steps=plan.steps)

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The teacher that taught, where it was trained here."""
        return {} if self.settings.teacher is None else {TEACHER: self._teacher(plan).removeprefix("stage:")}

    def _until_stop(self, objectives: Sequence[dict[str, Any]], task: str) -> tuple[dict[str, Any], ...]:
        """The job's objectives, those that read the teacher until the stop only."""
        stop = self.settings.stop
        if stop == 1:
            return tuple(objectives)
        taught = [reads_teacher(each, f"/objectives/{index}") for index, each in enumerate(objectives)]
        problems = [
            Problem(f"/objectives/{index}/weight", "must be a number: it is the procedure's to schedule")
            for index, each in enumerate(objectives)
            if taught[index] and isinstance(each.get("weight"), dict)
        ]
        if all(taught):
            words = f"leave nothing to learn after the stop: add `{ground_truth_of(task)['name']}`"
            problems.append(Problem("/objectives", words))
        if problems:
            raise SpecError(problems)
        return tuple(
            {**each, "weight": {"schedule": "until", "start": each.get("weight", 1.0), "end": 0.0, "until": stop}}
            if reads
            else each
            for each, reads in zip(objectives, taught, strict=True)
        )

    def _stop_epoch(self, plan: Plan) -> tuple[int, int]:
        """After which epoch the teacher's weights are taken, and how many there are."""
        total = teacher_epochs(self.settings.teacher_epochs, plan, "/procedure/teacher_epochs")
        return max(round(self.settings.teacher_stop * total), 1), total

    def _teacher_stage(self, plan: Plan) -> Stage:
        taken, total = self._stop_epoch(plan)
        member = companion(plan, self.settings.teacher, "/procedure/teacher")
        return teacher_stage(TEACHER, member, plan.task, epochs=total, snapshots=() if taken == total else (taken,))

    def _teacher(self, plan: Plan) -> str:
        taken, total = self._stop_epoch(plan)
        return f"stage:{TEACHER}/teacher" + ("" if taken == total else f"@{taken}")
