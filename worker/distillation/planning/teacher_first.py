"""A teacher that the job trains: the first stage trains it, and every other stage uses it as the job's teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from worker.distillation.parameters import NetworkChoice
from worker.distillation.planning.stages import companion, teacher_stage
from worker.distillation.procedure import GIVEN, PRETRAINED, Member, Plan, Procedure, Stage, StageResult

STAGE = "given_teacher"
PLACE = f"{STAGE}/teacher"


def trained_teacher(spec: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `teacher` of a job's spec if it is a network to be trained; else None."""
    teacher = spec.get("teacher")
    return teacher if isinstance(teacher, Mapping) and "network" in teacher else None


class TeacherFirst(Procedure):
    """Another procedure's stages, after a stage that trains their teacher on the dataset's labels.

    The teacher trains with its own `training` parameters; those that are missing, such as its epochs or steps, are the
    job's.
    """

    def __init__(self, procedure: Procedure, teacher: Mapping[str, Any]):
        super().__init__()
        self.procedure, self.teacher = procedure, teacher

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if not history:
            return self._teacher_stage(plan)
        stage = self.procedure.next(history[1:], plan)
        return replace(stage, teacher=f"stage:{PLACE}") if stage is not None and stage.teacher == GIVEN else stage

    def _teacher_stage(self, plan: Plan) -> Stage:
        chosen = NetworkChoice(self.teacher["network"], dict(self.teacher.get("options") or {}))
        given = {name: value for name, value in (self.teacher.get("training") or {}).items() if value is not None}
        epochs, steps = given.pop("epochs", None), given.pop("steps", None)
        if epochs is None and steps is None:
            epochs, steps = plan.epochs, plan.steps
        initial = PRETRAINED if self.teacher.get("initial_weights") == PRETRAINED else None
        member = replace(companion(plan, chosen, "/teacher"), initial=initial)
        return teacher_stage(STAGE, member, plan.task, epochs=epochs, steps=steps, training=given)

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        return self.procedure.student_place(history[1:], plan) if len(history) > 1 else f"{STAGE}/student"

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The teacher, and the networks that the procedure keeps."""
        return {"teacher": PLACE} | self.procedure.kept_places(history[1:], plan)

    def ensembles(self, history: Sequence[StageResult], plan: Plan) -> dict[str, tuple[str, ...]]:
        return self.procedure.ensembles(history[1:], plan)

    def considers(self, plan: Plan) -> Sequence[Member]:
        return self.procedure.considers(plan)

    def decisions(self, history: Sequence[StageResult], plan: Plan) -> dict[str, Any]:
        return self.procedure.decisions(history[1:], plan)
