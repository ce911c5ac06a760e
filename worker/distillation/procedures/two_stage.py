"""Two stages: first the student's lower layers, then the whole network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Objectives, Range
from worker.distillation.procedure import Plan, Procedure, ProcedureNeeds, Stage, StageResult
from worker.distillation.task import DENSE_TASKS, EVERY_TASK

FITNETS_TEMPERATURE = 3.0
FITNETS_FIRST: tuple[dict[str, Any], ...] = ({"name": "hint", "weight": 1.0, "form": "paper"},)
FITNETS_SECOND: tuple[dict[str, Any], ...] = (
    {"name": "cross_entropy", "weight": 1.0},
    {
        "name": "kd",
        "weight": {"schedule": "linear", "start": 4.0 / FITNETS_TEMPERATURE**2, "end": 0.0},
        "temperature": FITNETS_TEMPERATURE,
    },
)
"""Cross-entropy, plus lambda times the softened cross-entropy, with lambda from 4 to 0. FitNets has no factor T²,
which `kd` has, so the weight is divided by T²."""
SAPUTRA_FIRST: tuple[dict[str, Any], ...] = ({"name": "attentive_hint", "weight": 1.0},)
SAPUTRA_SECOND: tuple[dict[str, Any], ...] = ({"name": "attentive_imitation", "weight": 1.0},)
MIMIC_FIRST: tuple[dict[str, Any], ...] = (
    {"name": "roi_mimic", "weight": 1.0},
    {"name": "detection_loss", "weight": 1.0, "regions": 0.0},
)
MIMIC_SECOND: tuple[dict[str, Any], ...] = ({"name": "detection_loss", "weight": 1.0},)
PRESETS = {
    "fitnets": {"first": FITNETS_FIRST, "second": FITNETS_SECOND},
    "saputra": {"first": SAPUTRA_FIRST, "second": SAPUTRA_SECOND},
    "mimic": {"first": MIMIC_FIRST, "second": MIMIC_SECOND},
}
FRACTIONS = {None: 0.4, "fitnets": 0.4, "saputra": 0.5, "mimic": 0.5}
"""Share of the budget for the first stage. That of the preset `saputra` is the paper's; the others are ours."""


class TwoStage(Procedure):
    """Two stages: the student first learns features, up to a guided layer, then trains from those weights.

    The preset `fitnets` is Romero et al., "FitNets: hints for thin deep nets", arXiv:1412.6550: a hint in the paper's
    form, then cross-entropy and KD at a temperature of 3 whose weight falls from 4 to 0, as in the authors'
    configuration (adri-romsor/FitNets). The preset `saputra`, for regression, is Saputra et al., "Distilling knowledge
    from a deep pose regressor network", arXiv:1908.00858: attentive hints, then attentive imitation, which trains only
    the layers after the guided one. The preset `mimic`, for detection, is Li et al., "Mimicking very efficient network for object
    detection", CVPR 2017: the features of the regions are mimicked while the proposals are learnt, then the detector learns as
    usual; the share of half is ours.
    """

    needs = ProcedureNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))

    paper = "arXiv:1412.6550"
    when = {("preset", name): {"fills": stages} for name, stages in PRESETS.items()}

    @dataclass(frozen=True)
    class Parameters:
        """The objectives of the stages, the division of the budget, and the guided layer."""

        preset: Annotated[
            Literal["fitnets", "saputra", "mimic"] | None,
            "Preset that sets the objectives of both stages where they are null.",
        ] = None
        first: Annotated[Objectives | None, "Objectives of the first stage. If null: the preset's."] = None
        second: Annotated[
            Objectives | None,
            "Objectives of the second stage. If null: the preset's, or without a preset the job's own.",
        ] = None
        fraction: Annotated[
            float | None,
            Range(gt=0, lt=1),
            "Share of the epochs or steps for the first stage. If null: 0.4, or 0.5 with the presets `saputra` and `mimic`.",
        ] = None
        guided: Annotated[
            str | None,
            "Student's tap up to which the first stage trains the student. If null: every layer that receives a "
            "gradient trains.",
        ] = None
        hint: Annotated[
            str | None, "Teacher's tap that the preset's hint compares with `guided`. If null: paired by resolution."
        ] = None
        freeze: Annotated[
            bool | None,
            "Whether the second stage freezes the student up to `guided`. If null: only with the preset `saputra`.",
        ] = None

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if len(history) > 1:
            return None
        first, second = self._budgets(plan)
        if not history:
            member = replace(
                plan.student,
                objectives=self._first(),
                trains_through=self.settings.guided,
                transforms=(),
                pointer="/procedure/first",
            )
            return Stage("first", {"student": member}, plan.teacher, **first)
        own = self.settings.second is None and self.settings.preset is None
        member = replace(
            plan.student,
            objectives=self._second(plan),
            initial="stage:first",
            trains_after=self._frozen(),
            pointer="/objectives" if own else "/procedure/second",
        )
        return Stage("second", {"student": member}, plan.teacher, **second)

    def _first(self) -> tuple[dict[str, Any], ...]:
        p = self.settings
        if p.first is not None:
            return tuple(p.first)
        if p.preset is None:
            raise SpecError(
                [Problem("/procedure/first", "the first stage has no objectives: name some, or choose a preset")]
            )
        if p.preset == "mimic":
            if p.hint is not None:
                raise SpecError([Problem("/procedure/hint", "must be null: the preset `mimic` compares regions")])
            return MIMIC_FIRST
        if (p.guided is None) != (p.hint is None):
            missing = "hint" if p.hint is None else "guided"
            raise SpecError(
                [Problem(f"/procedure/{missing}", "the preset compares `guided` with `hint`: set both or neither")]
            )
        pair = None if p.guided is None else [p.guided, p.hint]
        (hint,) = PRESETS[p.preset]["first"]
        return ({**hint, "tap": pair} if p.preset == "saputra" else {**hint, "taps": pair and [pair]},)

    def _second(self, plan: Plan) -> tuple[dict[str, Any], ...]:
        p = self.settings
        if p.second is not None:
            return tuple(p.second)
        return plan.student.objectives if p.preset is None else PRESETS[p.preset]["second"]

    def _frozen(self) -> str | None:
        p = self.settings
        freeze = p.preset == "saputra" if p.freeze is None else p.freeze
        if freeze and p.guided is None:
            words = (
                "is required: the second stage freezes the student up to the guided layer; name it, or set `freeze` "
                "to false"
            )
            raise SpecError([Problem("/procedure/guided", words)])
        return p.guided if freeze else None

    def _budgets(self, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
        unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
        if total is None or total < 2:
            raise SpecError([Problem("/procedure/fraction", f"two stages need at least two {unit} of training")])
        p = self.settings
        first = min(max(round((p.fraction or FRACTIONS[p.preset]) * total), 1), total - 1)
        return {unit: first}, {unit: total - first}
