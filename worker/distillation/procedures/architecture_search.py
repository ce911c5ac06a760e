"""Architecture search guided by distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation import registry
from worker.distillation.parameters import Items, NetworkSpace, Range
from worker.distillation.planning.search import GIVEN, Sampler, Space, choices, neighbours, size
from worker.distillation.procedure import (
    Member,
    Plan,
    Procedure,
    ProcedureNeeds,
    Stage,
    StageResult,
    metric_of,
    milliseconds_of,
)

FINAL = "distil"
DEFAULT_SPACE = (NetworkSpace("resnet_cifar", {"depth": [8, 14, 20, 26, 32], "width": [8, 12, 16, 24, 32]}),)


class ArchitectureSearch(Procedure):
    """Distils many architectures of a given space for a short time each, and the best by accuracy and latency for the
    whole budget.

    Liu et al., "Search to distill: pearls are everywhere but not the eyes", arXiv:1911.09074: a trial's reward is
    `accuracy * (latency / target) ** w`. The accuracy is that of a network after a short distillation from the teacher,
    on held-out images; the latency is measured for one image on the job's device with one thread. The first trial is
    the job's own student. The paper searches by reinforcement learning over MobileNet-like networks in thousands of
    trials. Evolution and random draws, for which a few dozen trials suffice, are ours
    (docs/decisions/architecture-search.md), and so are all defaults, except w, which is that of MnasNet, Tan et al.,
    arXiv:1807.11626.
    """

    paper = "arXiv:1911.09074"
    needs = ProcedureNeeds(held_out_images=True, tasks=("classification", "multi_label", "embedding"))

    @dataclass(frozen=True)
    class Parameters:
        """The search space, the budget and the reward."""

        space: Annotated[
            tuple[NetworkSpace, ...] | None,
            Items(least=1, most=64),
            "Networks to choose from, in addition to the job's own student: names, each with lists of values of "
            "its options. If null: "
            "`resnet_cifar` of 8 to 32 layers and widths of 8 to 32.",
        ] = None
        trials: Annotated[
            int, Range(ge=2, le=200), "Number of architectures that are tried. The first is the job's own student."
        ] = 16
        trial_fraction: Annotated[
            float, Range(gt=0, le=1), "Share of the job's epochs or steps for which each trial trains."
        ] = 0.1
        target_milliseconds: Annotated[
            float | None, Range(gt=0), "Target latency in milliseconds. If null: that of the job's own student."
        ] = None
        latency_exponent: Annotated[
            float, Range(le=0), "Exponent w of the latency in the reward; 0 ignores the latency."
        ] = -0.07
        sampler: Annotated[
            Literal["evolution", "random"],
            "Sampling of architectures: at random, or, after the first trials, by changing one of the best recent"
            " ones (arXiv:1802.01548).",
        ] = "evolution"
        population: Annotated[
            int, Range(ge=1, le=200), "For evolution: number of the newest trials from which parents are chosen."
        ] = 8
        sample: Annotated[
            int,
            Range(ge=1, le=200),
            "For evolution: number of these that are drawn at random, of which the best becomes the parent.",
        ] = 3

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if history and history[-1].name == FINAL:
            return None
        rewards = self._rewards(history, plan)
        number = self._sampler(plan).propose(self._space(), rewards) if len(history) < self.settings.trials else None
        if number is None:
            best = self._tried(history, plan)[_best(rewards)]
            member = plan.student if best == GIVEN else self._member(best, plan)
            return Stage(FINAL, {"student": member}, plan.teacher, epochs=plan.epochs, steps=plan.steps)
        unit, total = ("epochs", plan.epochs) if plan.steps is None else ("steps", plan.steps)
        budget: dict[str, Any] = {unit: max(1, round(self.settings.trial_fraction * (total or 1)))}
        member = replace(self._member(number, plan), initial=None)
        name = f"trial_{len(history) + 1}"
        return Stage(name, {"student": member}, plan.teacher, **budget, evaluated=True, timed=True)

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        """The network that was trained in full, or else that of the best trial."""
        if history[-1].name == FINAL:
            return f"{FINAL}/student"
        return f"trial_{_best(self._rewards(history, plan)) + 1}/student"

    def considers(self, plan: Plan) -> Sequence[Member]:
        """The first architecture of each family, and all that differ from it in one option."""
        space = self._space()
        first = 0
        numbers = []
        for index in range(len(space)):
            numbers += [first, *neighbours(space, first)]
            first += size(space[index : index + 1])
        return [self._member(number, plan) for number in numbers]

    def decisions(self, history: Sequence[StageResult], plan: Plan) -> dict[str, Any]:
        """All trials, and the best one."""
        trials = [result for result in history if result.name != FINAL]
        if not trials:
            return {}
        rewards = self._rewards(trials, plan)
        metric = _metric(plan)
        rows = []
        for result, number, reward in zip(trials, self._tried(trials, plan), rewards, strict=True):
            member = self._member(number, plan)
            accuracy, milliseconds = _measured(result, metric)
            rows.append(
                {
                    "stage": result.name,
                    "network": member.network,
                    "options": member.options,
                    metric: accuracy,
                    "latency_milliseconds": milliseconds,
                    "reward": reward,
                }
            )
        told = {"architectures": size(self._space()), "target_milliseconds": self._target(trials, plan)}
        return {**told, "trials": rows, "best": rows[_best(rewards)]["stage"]}

    @property
    def _families(self) -> tuple[NetworkSpace, ...]:
        return DEFAULT_SPACE if self.settings.space is None else self.settings.space

    def _space(self) -> Space:
        return tuple(tuple(len(values) for values in family.options.values()) for family in self._families)

    def _sampler(self, plan: Plan) -> Sampler:
        p = self.settings
        return Sampler(p.sampler, p.population, p.sample, plan.seed)

    def _tried(self, history: Sequence[StageResult], plan: Plan) -> tuple[int, ...]:
        return self._sampler(plan).tried(self._space(), self._rewards(history, plan))

    def _member(self, number: int, plan: Plan) -> Member:
        if number == GIVEN:
            return plan.student
        index, values = choices(self._space(), number)
        family = self._families[index]
        options = {name: given[value] for (name, given), value in zip(family.options.items(), values, strict=True)}
        place = f"/procedure/space/{index}"
        return replace(plan.student, network=family.network, options=options, initial=None, network_pointer=place)

    def _target(self, history: Sequence[StageResult], plan: Plan) -> float | None:
        wanted = self.settings.target_milliseconds
        return _measured(history[0], _metric(plan))[1] if wanted is None and history else wanted

    def _rewards(self, history: Sequence[StageResult], plan: Plan) -> tuple[float, ...]:
        """The rewards of the trials; 0 for a trial that is only planned."""
        target = self._target(history, plan)
        metric = _metric(plan)
        rewards = []
        for result in history:
            accuracy, milliseconds = _measured(result, metric)
            if accuracy is None or milliseconds is None or target is None:
                rewards.append(0.0)
            else:
                rewards.append(accuracy * (milliseconds / target) ** self.settings.latency_exponent)
        return tuple(rewards)


def _metric(plan: Plan) -> str:
    return str(registry.find("tasks", plan.task).main_metric)


def _measured(result: StageResult, metric: str) -> tuple[float | None, float | None]:
    """A trial's accuracy, or the task's main metric in its place, and its latency in milliseconds."""
    return result.metrics.get(metric_of("student", metric)), result.metrics.get(milliseconds_of("student"))


def _best(rewards: Sequence[float]) -> int:
    """The first of the highest rewards."""
    return max(range(len(rewards)), key=lambda trial: rewards[trial])
