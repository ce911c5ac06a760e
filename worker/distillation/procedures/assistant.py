"""Teacher assistants: a chain of networks between teacher and student."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Items, NetworkChoice
from worker.distillation.planning.stages import companion
from worker.distillation.procedure import Plan, Procedure, ProcedureNeeds, Stage, StageResult
from worker.distillation.task import DENSE_TASKS, EVERY_TASK


class Assistant(Procedure):
    """Each network of a chain learns from the one before it: the teacher, its assistants in order, then the student.

    Mirzadeh et al., "Improved knowledge distillation via teacher assistant", arXiv:1902.03393. Every network of the
    chain trains for the job's whole budget on the job's objectives. In the paper, the best assistant is one whose
    accuracy lies midway; Cho and Hariharan (arXiv:1910.01348) find no consistent gain. Without assistants, the result
    is bit-equal to plain distillation.
    """

    needs = ProcedureNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))

    paper = "arXiv:1902.03393"

    @dataclass(frozen=True)
    class Parameters:
        """The networks of the chain."""

        assistants: Annotated[
            tuple[NetworkChoice, ...], Items(most=16), "Networks between teacher and student, from large to small."
        ] = ()

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if plan.teacher is None:
            raise SpecError([Problem("/teacher", "is required: the chain starts with a teacher")])
        done, links = len(history), len(self.settings.assistants)
        if done > links:
            return None
        teacher = plan.teacher if done == 0 else f"stage:{history[-1].name}"
        if done == links:
            return Stage("distil", {"student": plan.student}, teacher, epochs=plan.epochs, steps=plan.steps)
        member = companion(plan, self.settings.assistants[done], f"/procedure/assistants/{done}")
        return Stage(f"assistant_{done + 1}", {"student": member}, teacher, epochs=plan.epochs, steps=plan.steps)

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The assistants."""
        return {result.name: f"{result.name}/student" for result in history[:-1]}
