"""Direct: one stage."""

from collections.abc import Sequence

from worker.distillation.procedure import Plan, Procedure, ProcedureNeeds, Stage, StageResult
from worker.distillation.task import DENSE_TASKS, EVERY_TASK


class Direct(Procedure):
    """One stage: the student trains on all of its objectives from the first step to the last."""

    needs = ProcedureNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if history:
            return None
        return Stage("distil", {"student": plan.student}, plan.teacher, epochs=plan.epochs, steps=plan.steps)
