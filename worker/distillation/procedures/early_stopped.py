"""Early-stopped distillation: stop distilling part-way, or learn from a teacher whose training was stopped early."""

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
    """Turns off the objectives that read the teacher part-way; a teacher that the procedure trains may also be stopped
    early.

    Cho, Hariharan, "On the efficacy of knowledge distillation", arXiv:1910.01348, with both of its interventions:
    `stop` ends the distillation while the other objectives continue with the same optimiser and learning rate, and
    `teacher_stop` takes the teacher's weights from an earlier epoch of its training, since a less trained teacher is
    easier to mimic. The default of `stop` is ours.
    """

    paper = "arXiv:1910.01348"
    own_teacher = True

    @dataclass(frozen=True)
    class Parameters:
        """The teacher, and when to stop."""

        stop: Annotated[
            float,
            Range(gt=0, le=1),
            "Share of the student's training after which objectives that read the teacher are off. 1 never turns "
            "them off.",
        ] = 0.5
        teacher: Annotated[
            NetworkChoice | None, "Network of a teacher to train first, on labels, if the job has no teacher."
        ] = None
        teacher_epochs: Annotated[
            int | None,
            Range(ge=1),
            "Number of epochs for which that teacher trains. If null: the job's number of epochs.",
        ] = None
        teacher_stop: Annotated[
            float,
            Range(gt=0, le=1),
            "Share of the teacher's epochs after which its weights are taken. 1 takes the finished teacher.",
        ] = 1.0

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        student = replace(plan.student, objectives=self._until_stop(plan.student.objectives, plan.task))
        if self.settings.teacher is None:
            if plan.teacher is None or self.settings.teacher_stop < 1:
                words = "name the network of a teacher to train first, or give the job a trained teacher"
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
        """The teacher of the distillation, if the procedure trained it."""
        return {} if self.settings.teacher is None else {TEACHER: self._teacher(plan).removeprefix("stage:")}

    def _until_stop(self, objectives: Sequence[dict[str, Any]], task: str) -> tuple[dict[str, Any], ...]:
        """The job's objectives; those that read the teacher end at the stop."""
        stop = self.settings.stop
        if stop == 1:
            return tuple(objectives)
        taught = [reads_teacher(each, f"/objectives/{index}") for index, each in enumerate(objectives)]
        problems = [
            Problem(f"/objectives/{index}/weight", "must be a number: the procedure schedules this weight")
            for index, each in enumerate(objectives)
            if taught[index] and isinstance(each.get("weight"), dict)
        ]
        if all(taught):
            words = (
                "all read the teacher, so nothing is left to learn after the stop: add "
                f"`{ground_truth_of(task)['name']}`"
            )
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
        """The epoch after which the teacher's weights are taken, and the number of its epochs."""
        total = teacher_epochs(self.settings.teacher_epochs, plan, "/procedure/teacher_epochs")
        return max(round(self.settings.teacher_stop * total), 1), total

    def _teacher_stage(self, plan: Plan) -> Stage:
        taken, total = self._stop_epoch(plan)
        member = companion(plan, self.settings.teacher, "/procedure/teacher")
        return teacher_stage(TEACHER, member, plan.task, epochs=total, snapshots=() if taken == total else (taken,))

    def _teacher(self, plan: Plan) -> str:
        taken, total = self._stop_epoch(plan)
        return f"stage:{TEACHER}/teacher" + ("" if taken == total else f"@{taken}")
