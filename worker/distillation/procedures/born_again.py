"""Born-again networks: generations that each learn from the one before."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from worker.distillation.parameters import Range
from worker.distillation.planning.stages import companion, teacher_stage
from worker.distillation.procedure import Plan, Procedure, Stage, StageResult

FIRST = "generation_0"


class BornAgain(Procedure):
    """Generations of the student's network, each initialised from its own seed and taught by the one before; the last
    is the result.

    Furlanello et al., "Born again neural networks", arXiv:1805.04770. The job's teacher is generation 0. A job without
    a teacher first trains one, a network like the student, on labels. Every generation trains for the job's whole
    budget on the job's objectives: the paper's are `kd` at a temperature of 1, with or without `cross_entropy`. The
    job's initial weights are used for the first generation only. The paper's ensembles are the mean of the predictions
    of all generations, without the teacher.
    """

    paper = "arXiv:1805.04770"
    own_teacher = True

    @dataclass(frozen=True)
    class Parameters:
        """The number of generations, and the ensemble."""

        generations: Annotated[int, Range(ge=1, le=20), "Number of generations after the teacher."] = 3
        ensemble: Annotated[
            bool,
            "Also export and evaluate the mean of two or more generations, if the task is classification.",
        ] = True

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        budget: dict[str, Any] = {"epochs": plan.epochs, "steps": plan.steps}
        before = 0 if plan.teacher else 1
        if len(history) < before:
            return teacher_stage(FIRST, companion(plan, None, "/student"), plan.task, **budget)
        number = len(history) - before + 1
        if number > self.settings.generations:
            return None
        member = plan.student if number == 1 else replace(plan.student, initial=None)
        seed_name = "distil" if number == 1 else None  # seeded like plain distillation
        return Stage(
            f"generation_{number}", {"student": member}, _teacher(history, plan), seed_name=seed_name, **budget
        )

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """All generations except the last, which is the result."""
        return {each.name: _place(each.name) for each in history[:-1]}

    def ensembles(self, history: Sequence[StageResult], plan: Plan) -> dict[str, tuple[str, ...]]:
        """All generations after the teacher."""
        places = tuple(_place(each.name) for each in history if each.name != FIRST)
        wanted = self.settings.ensemble and plan.task == "classification" and len(places) > 1
        return {"ensemble": places} if wanted else {}


def _teacher(history: Sequence[StageResult], plan: Plan) -> str | None:
    return f"stage:{_place(history[-1].name)}" if history else plan.teacher


def _place(stage: str) -> str:
    return f"{stage}/{'teacher' if stage == FIRST else 'student'}"
