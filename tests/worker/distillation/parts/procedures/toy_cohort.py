"""Three different networks that learn from each other."""

from dataclasses import dataclass, replace
from typing import Literal

from worker.distillation.procedure import Procedure, Stage


class ToyCohort(Procedure):
    """One stage without a teacher; `student` ships."""

    @dataclass(frozen=True)
    class Parameters:
        update: Literal["simultaneous", "sequential"] = "simultaneous"

    def next(self, history, plan):
        if history:
            return None
        members = {
            "student": plan.student,
            "twin": replace(plan.student, initial=None),
            "other": replace(plan.student, network="resnet8_cifar", options={}, initial=None),
        }
        return Stage("cohort", members, None, steps=plan.steps, update=self.settings.update)
