"""Source trials: several sources without data are tried, and the student learns from the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation import registry
from worker.distillation.parameters import Items, NetworkChoice, Range
from worker.distillation.procedure import (
    Member,
    Plan,
    Procedure,
    ProcedureNeeds,
    Stage,
    StageResult,
    estimate_of,
)
from worker.distillation.synthesis.estimate import FAIR, POOR

TRIAL = "trial_"
OWN = "own"
DISTIL, AGAIN, LONGER, FALLBACK = "distil", "again", "longer", "fallback"
LONGER_FACTOR = 2
OF_A_SOURCE = ("learning_rate", "relative_rates")
"""Training parameters that every source has its own defaults of."""


class SourceTrials(Procedure):
    """Distils from several sources without data for a short time each, and from the best for the whole budget.

    The best is the one whose student has the highest estimated agreement with the teacher on held-out procedural images, which
    no training saw. The job's own source is tried first. If the student's estimate is below 70 % at the end, another begins
    again, from the source that was second in the trials. If no estimate has reached `least_estimate`, the better student
    goes on for twice as many steps; if it is still below, the network `fallback` is trained. The student is the network with
    the highest estimate. The trials and their thresholds are ours.
    """

    needs = ProcedureNeeds(synthesised_images=True, tasks=("classification",))

    @dataclass(frozen=True)
    class Parameters:
        """The sources, the length of their trials, and when training goes on."""

        sources: Annotated[
            tuple[
                Literal[
                    "cmi",
                    "cpnet",
                    "dafl",
                    "deep_inversion",
                    "dfad",
                    "dfq",
                    "fast_meta",
                    "nayer",
                    "noise",
                    "procedural",
                    "zskt",
                ],
                ...,
            ],
            Items(least=0, most=9),
            "Sources that are tried besides the job's own, with their default parameters.",
        ] = ("dafl",)
        trial_fraction: Annotated[
            float, Range(gt=0, le=1), "Share of the job's steps for which each source is tried."
        ] = 0.1
        least_estimate: Annotated[
            float,
            Range(ge=0, le=1),
            "Estimated agreement of student and teacher below which training goes on after the job's steps; 0 never goes on.",
        ] = FAIR
        fallback: Annotated[
            NetworkChoice | None,
            "Network that is trained in place of the student if its estimate stays below. If null: none.",
        ] = None

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        sources = self._sources()
        if len(history) < len(sources) > 1:
            source = sources[len(history)]
            steps = max(1, round(self.settings.trial_fraction * (plan.steps or 1)))
            return self._stage(TRIAL + (source or OWN), plan.student, source, plan, steps, may_fail=True)
        trained = history[len(sources) if len(sources) > 1 else 0 :]
        first, second = self._ranked(history)
        steps = plan.steps or 1
        if not trained:
            return self._stage(DISTIL, plan.student, first, plan, steps)
        if any(self._is_enough(result) for result in trained):
            return None
        if trained[-1].name == DISTIL and trained[-1].metrics[ESTIMATE] < min(POOR, self.settings.least_estimate):
            return self._stage(AGAIN, plan.student, second, plan, steps)
        best = _highest(trained)
        source = second if best.name == AGAIN else first
        if trained[-1].name in (DISTIL, AGAIN):
            member = replace(plan.student, initial=f"stage:{best.name}/student")
            return self._stage(LONGER, member, source, plan, LONGER_FACTOR * steps)
        if trained[-1].name == LONGER and (choice := self.settings.fallback) is not None:
            return self._stage(FALLBACK, self._fallback(choice, plan), source, plan, steps)
        return None

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        """The network with the highest estimate of those that trained for the whole budget; the first of equal ones."""
        trained = [result for result in history if not result.name.startswith(TRIAL)]
        return f"{(_highest(trained) if trained else history[-1]).name}/student"

    def considers(self, plan: Plan) -> Sequence[Member]:
        choice = self.settings.fallback
        return () if choice is None else (self._fallback(choice, plan),)

    def decisions(self, history: Sequence[StageResult], plan: Plan) -> dict[str, Any]:
        """All stages with their estimates, and the source that was chosen."""
        own = self._sources()
        stages = [{"stage": each.name, "steps": each.steps, "estimate": each.metrics.get(ESTIMATE)} for each in history]
        return {"stages": stages, "source": self._ranked(history)[0] or OWN} if len(history) >= len(own) else {}

    def _sources(self) -> tuple[str | None, ...]:
        """The sources to try; None is the job's own."""
        return (None, *self.settings.sources)

    def _ranked(self, history: Sequence[StageResult]) -> tuple[str | None, str | None]:
        """The sources whose trials have the two highest estimates, the first of equal ones; the same twice if there is one."""
        trials = [result for result in history if result.name.startswith(TRIAL)]
        ranked = sorted(trials, key=lambda result: result.metrics.get(ESTIMATE, 0.0), reverse=True)
        names = [result.name.removeprefix(TRIAL) for result in ranked] or [OWN]
        first, second = (None if name == OWN else name for name in (*names, names[0])[:2])
        return first, second

    def _is_enough(self, result: StageResult) -> bool:
        """Whether a student's estimate is high enough; one that could not be estimated, or is only planned, is."""
        return result.metrics.get(ESTIMATE, 1.0) >= self.settings.least_estimate

    def _fallback(self, choice: NetworkChoice, plan: Plan) -> Member:
        return replace(
            plan.student,
            network=choice.network,
            options=dict(choice.options),
            initial=None,
            network_pointer="/procedure/fallback",
        )

    def _stage(
        self, name: str, member: Member, source: str | None, plan: Plan, steps: int, may_fail: bool = False
    ) -> Stage:
        seed_name = DISTIL if name == DISTIL else None
        stage = Stage(name, {"student": member}, plan.teacher, steps=steps, seed_name=seed_name, estimated=True)
        if source is None:
            return replace(stage, may_fail=may_fail)
        return replace(stage, source={"name": source}, training=_training(source, plan), may_fail=may_fail)


def _highest(results: Sequence[StageResult]) -> StageResult:
    """The stage with the highest estimate, the first of equal ones."""
    return max(results, key=lambda result: result.metrics.get(ESTIMATE, 0.0))


def _training(source: str, plan: Plan) -> dict[str, Any]:
    """The training parameters that a source has its own defaults of."""
    found = registry.find("sources", source, "/procedure/sources")
    sliced = found.sliced_training_defaults if plan.sliced else {}
    defaults = {"relative_rates": "off", **found.training_defaults, **sliced}
    return {name: defaults[name] for name in OF_A_SOURCE if name in defaults}


ESTIMATE = estimate_of("student")
