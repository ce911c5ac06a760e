"""The weighted sum of several objectives, such as KD + NST, described by data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from worker.distillation import registry
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.introspection.taps import Tapped
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.step import Step
from worker.distillation.task import Task
from worker.distillation.trainer.objective_weight import check_weight, weight_at


@dataclass(frozen=True, kw_only=True)
class ConnectContext:
    """What objectives need to connect, besides the networks."""

    example: Tensor
    """Two blank images; the student runs on them to find shapes."""
    classes: int
    examples: int | None
    """Number of samples in the dataset; None without a dataset."""
    peers: int = 0
    """Number of other members of the cohort."""
    task: Task


class Composition(nn.Module):
    """The weighted sum of objectives. Terms are named `OBJECTIVE/TERM`; a second objective of the same name gets a number."""

    def __init__(self, specs: Sequence[Mapping[str, Any]], pointer: str = "/objectives"):
        super().__init__()
        self.weights: list[float | Mapping[str, Any]] = []
        self._requested: list[Taps] = []  # the taps of each objective
        self._dense = False
        self.names: list[str] = []
        self.pointers = [f"{pointer}/{index}" for index in range(len(specs))]
        objectives = nn.ModuleList()
        self.objectives = cast(Sequence[Objective], objectives)
        for spec, place in zip(specs, self.pointers, strict=True):
            objectives.append(registry.make("objectives", spec, place, leave_out=("weight",)))
            check_weight(spec.get("weight", 1.0), place)
            self.weights.append(spec.get("weight", 1.0))
            taken = sum(name.split("#")[0] == spec["name"] for name in self.names)
            self.names.append(f"{spec['name']}#{taken + 1}" if taken else spec["name"])

    def needs(self) -> list[ObjectiveNeeds]:
        return [objective.active_needs for objective in self.objectives]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(sorted({field for needs in self.needs() for field in needs.fields}))

    @property
    def sampler(self) -> str | None:
        demands = sorted({needs.sampler for needs in self.needs() if needs.sampler})
        if len(demands) > 1:
            raise SpecError([Problem("/objectives", f"two objectives demand different samplers: {', '.join(demands)}")])
        return demands[0] if demands else None

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        """The taps that the objectives read."""
        requested = [
            self._at(place, lambda objective=objective: objective.taps(student, teacher))
            for objective, place in zip(self.objectives, self.pointers, strict=True)
        ]
        self._requested = requested
        return Taps(
            tuple(dict.fromkeys(tap for taps in requested for tap in taps.student)),
            tuple(dict.fromkeys(tap for taps in requested for tap in taps.teacher)),
        )

    @property
    def reads_logits_alone(self) -> bool:
        """Whether the objectives, once connected, read nothing of the teacher but one row of logits for each image, and none
        differentiates it."""
        taps = any(requested.teacher for requested in self._requested)
        return not (self._dense or taps or any(each.input_gradient for each in self.needs()))

    def connect(self, student: Tapped, teacher: Tapped | None, context: ConnectContext) -> None:
        """Request the taps, and build all objectives from both networks' outputs for an example in eval mode.

        Raises:
            SpecError: an objective does not work with these networks; pointers start with the objectives' place in the spec.
        """
        self._refuse_two_readers(teacher)
        self._dense = context.task.dense
        for objective in self.objectives:
            objective.task = context.task.name
        taps = self.taps(student.map, teacher.map if teacher else None)
        student.request(taps.student)
        if teacher:
            teacher.request(taps.teacher)
        with torch.no_grad():
            student_outputs = context.task.read(student, context.example, {})
            shared = student_outputs if context.task.student_first else None
            teacher_outputs = context.task.read(teacher, teacher.example, {}, shared) if teacher else None
        self.build(
            BuildContext(
                student=student_outputs,
                teacher=teacher_outputs,
                student_network=student.network,
                teacher_network=teacher.network if teacher else None,
                classes=context.classes,
                examples=context.examples,
                peers=context.peers,
            )
        )
        self.to(context.example.device)

    def _refuse_two_readers(self, teacher: Tapped | None) -> None:
        """Refuse objectives that pass one image to both networks if the teacher reads other images than the student."""
        if teacher is None or teacher.reads == "image":
            return
        message = "passes the same image to student and teacher, and this teacher reads a different image"
        places = zip(self.pointers, self.needs(), strict=True)
        problems = [Problem(f"{at}/name", message) for at, needs in places if needs.one_image]
        if problems:
            raise SpecError(problems)

    def build(self, context: BuildContext) -> None:
        second = [place for place, each in zip(self.pointers, self.objectives, strict=True) if _deploys(type(each))][1:]
        if second:
            message = "adds modules to the shipped student, and an objective before it already does; use one of them"
            raise SpecError([Problem(f"{place}/name", message) for place in second])
        for objective, place in zip(self.objectives, self.pointers, strict=True):
            self._at(place, lambda objective=objective: objective.build(context))

    def observe(self, step: Step) -> None:
        for objective in self.objectives:
            if objective.active_needs.prepass:
                objective.observe(step)

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the unweighted terms by name; for a divided batch, this rank's share of both.

        The teacher's graph is kept for objectives that take gradients to the image, and for other cohort members. All
        other objectives get detached teacher outputs, because their backward pass would free the graph.
        """
        total: Tensor | None = None
        named: dict[str, Tensor] = {}
        of_constants = replace(step, teacher=step.teacher and step.teacher.detached())
        for index, (name, weight, objective) in enumerate(zip(self.names, self.weights, self.objectives, strict=True)):
            factor = weight_at(weight, step.progress)
            if factor == 0.0:
                continue
            own = step if objective.active_needs.input_gradient else of_constants
            terms, share = self._measure(index, objective, own)
            first, *others = terms.values()
            value = sum(others, first) * (factor * share)
            total = value if total is None else total + value
            named |= {f"{name}/{term}": tensor.detach() * share for term, tensor in terms.items()}
        if total is None:  # all weights are zero at this step; `backward` still needs a graph
            total = step.student.logits.sum() * 0.0
        return total, named

    def _measure(self, index: int, objective: Objective, step: Step) -> tuple[dict[str, Tensor], float]:
        """An objective's terms and their share in the total, on this rank's samples, or on all ranks' if it needs them."""
        division = step.batch.division
        if objective.active_needs.batch_global and division.sizes:
            taps = self._requested[index]
            return objective(step.gathered(taps.student, taps.teacher)), division.copy_share
        with division.statistics():
            return objective(step), division.share

    def adversary_parameters(self) -> list[nn.Parameter]:
        return [parameter for objective in self.objectives for parameter in objective.adversary_parameters()]

    def adversary_groups(self) -> list[dict[str, Any]]:
        """The adversaries' parameters as optimiser groups, each with its learning rate."""
        groups = [
            {"params": list(objective.adversary_parameters()), "lr": objective.adversary_learning_rate}
            for objective in self.objectives
        ]
        return [group for group in groups if group["params"]]

    def adversary_loss(self, step: Step) -> Tensor | None:
        losses = [loss for objective in self.objectives if (loss := objective.adversary_loss(step)) is not None]
        return sum(losses[1:], losses[0]) if losses else None

    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters that train with the student, such as those of connectors."""
        own = {id(parameter) for parameter in self.adversary_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def deployed_state(self) -> dict[str, Tensor]:
        """State of a composition of the `deploying` objectives alone; empty if the student ships without additions."""
        deploying_ = nn.ModuleList(each for each in self.objectives if _deploys(type(each)))
        return {f"objectives.{name}": tensor for name, tensor in deploying_.state_dict().items()}

    def deploy(self, student: nn.Module, teacher: nn.Module | None) -> nn.Module:
        """The network that ships: `student` itself, unchanged, or a new network in evaluation mode."""
        for objective in self.objectives:
            student = objective.deploy(student, teacher)
        return student

    @staticmethod
    def _at(place: str, action: Any) -> Any:
        """Run `action`, and prefix the pointers of its problems with the objective's place."""
        try:
            return action()
        except SpecError as error:
            moved = [
                problem
                if problem.pointer.startswith("/objectives")
                else Problem(place + problem.pointer, problem.message)
                for problem in error.problems
            ]
            raise SpecError(moved, error.hint) from error


def deploying(specs: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The specs of objectives that add modules to the shipped student."""
    return tuple(spec for spec in specs if _deploys(registry.find("objectives", spec["name"])))


def _deploys(objective: type[Objective]) -> bool:
    return objective.deploy is not Objective.deploy
