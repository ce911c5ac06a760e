"""Two stages: layers up to a tap with one objective, then everything with the job's own."""

from dataclasses import dataclass, replace

from worker.distillation.procedure import Procedure, Stage


class ToyHalves(Procedure):
    """The first stage freezes what lies after `through`."""

    @dataclass(frozen=True)
    class Parameters:
        through: str
        teacher_tap: str

    def next(self, history, plan):
        if len(history) == 2:
            return None
        if len(history) == 1:
            member = replace(plan.student, initial="stage:features")
            return Stage("whole", {"student": member}, plan.teacher, steps=plan.steps)
        hint = {"name": "toy_hint", "student": self.settings.through, "teacher": self.settings.teacher_tap}
        member = replace(plan.student, objectives=(hint,), trains_through=self.settings.through)
        return Stage("features", {"student": member}, plan.teacher, steps=plan.steps)
