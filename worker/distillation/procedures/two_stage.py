"""Two stages: first the student's lower layers, then all of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Objectives, Range
from worker.distillation.procedure import Plan, Procedure, Stage, StageResult

FITNETS_TEMPERATURE = 3.0
FITNETS_SECOND: tuple[dict[str, Any], ...] = (
    {"name": "cross_entropy", "weight": 1.0},
    {
        "name": "kd",
        "weight": {"schedule": "linear", "start": 4.0 / FITNETS_TEMPERATURE**2, "end": 0.0},
        "temperature": FITNETS_TEMPERATURE,
    },
)
"""Cross-entropy and lambda times the softened one, lambda from 4 to 0. FitNets has no T², which `kd` has, so its weight is divided by it."""


class TwoStage(Procedure):
    """Two stages: the student first learns features, up to a guided layer, then trains as a whole from those weights.

    The preset `fitnets` is Romero et al., "FitNets: hints for thin deep nets", arXiv:1412.6550: a hint in the paper's form,
    then cross-entropy and KD at a temperature of 3 whose weight falls from 4 to 0, as in the authors' configuration
    (adri-romsor/FitNets). The share of the budget that the first stage gets is ours.
    """

    paper = "arXiv:1412.6550"

    @dataclass(frozen=True)
    class Parameters:
        """What the stages train on, and how the budget is split."""

        preset: Annotated[Literal["fitnets"] | None, "Fills in the objectives of both stages where they are null."] = (
            None
        )
        first: Annotated[Objectives | None, "Objectives of the first stage; null takes the preset's."] = None
        second: Annotated[
            Objectives | None, "Objectives of the second stage; null takes the preset's, without one the job's own."
        ] = None
        fraction: Annotated[float, Range(gt=0, lt=1), "Share of the epochs or steps that the first stage gets."] = 0.4
        guided: Annotated[
            str | None, "The student's tap up to which the first stage trains it; null leaves that to its gradients."
        ] = None
        hint: Annotated[
            str | None, "The teacher's tap that the preset's hint compares with `guided`; null pairs by resolution."
        ] = None

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if len(history) > 1:
            return None
        first, second = self._budgets(plan)
        if not history:
            member = replace(
                plan.student,
                objectives=self._first(),
                trains_through=self.parameters.guided,
                transforms=(),
                pointer="/procedure/first",
            )
            return Stage("first", {"student": member}, plan.teacher, **first)
        pointer = "/objectives" if self.parameters.second is None else "/procedure/second"
        member = replace(plan.student, objectives=self._second(plan), initial="stage:first", pointer=pointer)
        return Stage("second", {"student": member}, plan.teacher, **second)

    def _first(self) -> tuple[dict[str, Any], ...]:
        p = self.parameters
        if p.first is not None:
            return tuple(p.first)
        if p.preset is None:
            raise SpecError([Problem("/procedure/first", "the first stage has no objectives: name some, or a preset")])
        if (p.guided is None) != (p.hint is None):
            missing = "hint" if p.hint is None else "guided"
            raise SpecError(
                [Problem(f"/procedure/{missing}", "the preset compares `guided` with `hint`: name both or none")]
            )
        taps = None if p.guided is None else [[p.guided, p.hint]]
        return ({"name": "hint", "weight": 1.0, "form": "paper", "taps": taps},)

    def _second(self, plan: Plan) -> tuple[dict[str, Any], ...]:
        p = self.parameters
        if p.second is not None:
            return tuple(p.second)
        return plan.student.objectives if p.preset is None else FITNETS_SECOND

    def _budgets(self, plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
        unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
        if total is None or total < 2:
            raise SpecError([Problem("/procedure/fraction", f"two stages need at least two {unit} of training")])
        first = min(max(round(self.parameters.fraction * total), 1), total - 1)
        return {unit: first}, {unit: total - first}
