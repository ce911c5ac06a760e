"""Several weighted objectives are one: KD + NST is data, not code."""

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
from worker.distillation.trainer.objective_weight import check_weight, weight_at


@dataclass(frozen=True, kw_only=True)
class ConnectContext:
    """What objectives are connected with, beside the networks."""

    example: Tensor
    """Two blank images, which the student is run on to find shapes."""
    classes: int
    examples: int | None
    """How many samples the dataset has; None without one."""
    peers: int = 0
    """How many other members the cohort has."""
    task: str


class Composition(nn.Module):
    """The weighted sum of objectives. Terms are named `OBJECTIVE/TERM`; a second objective of a name gets a number."""

    def __init__(self, specs: Sequence[Mapping[str, Any]], pointer: str = "/objectives"):
        super().__init__()
        self.weights: list[float | Mapping[str, Any]] = []
        self._wanted: list[Taps] = []  # the taps of each objective
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
        """All taps of all objectives."""
        wanted = [
            self._at(place, lambda objective=objective: objective.taps(student, teacher))
            for objective, place in zip(self.objectives, self.pointers, strict=True)
        ]
        self._wanted = wanted
        return Taps(
            tuple(dict.fromkeys(tap for taps in wanted for tap in taps.student)),
            tuple(dict.fromkeys(tap for taps in wanted for tap in taps.teacher)),
        )

    def connect(self, student: Tapped, teacher: Tapped | None, context: ConnectContext) -> None:
        """Have the taps captured, and build all objectives on what both networks, in eval mode, make of an example.

        Raises:
            SpecError: an objective cannot work with these networks; pointers lie within the composition's place in the spec.
        """
        self._refuse_two_readers(teacher)
        for objective in self.objectives:
            objective.task = context.task
        taps = self.taps(student.map, teacher.map if teacher else None)
        student.request(taps.student)
        if teacher:
            teacher.request(taps.teacher)
        with torch.no_grad():
            student_outputs = student(context.example)
            teacher_outputs = teacher(teacher.example) if teacher else None
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
        """See that no objective shows both networks one picture, where the teacher reads another than the student."""
        if teacher is None or teacher.reads == "image":
            return
        words = "shows both networks the same image, and the teacher reads another"
        places = zip(self.pointers, self.needs(), strict=True)
        problems = [Problem(f"{at}/name", words) for at, needs in places if needs.one_image]
        if problems:
            raise SpecError(problems)

    def build(self, context: BuildContext) -> None:
        second = [place for place, each in zip(self.pointers, self.objectives, strict=True) if _deploys(type(each))][1:]
        if second:
            words = "an objective before it ships more than the student already"
            raise SpecError([Problem(f"{place}/name", words) for place in second])
        for objective, place in zip(self.objectives, self.pointers, strict=True):
            self._at(place, lambda objective=objective: objective.build(context))

    def observe(self, step: Step) -> None:
        for objective in self.objectives:
            if objective.active_needs.prepass:
                objective.observe(step)

    def forward(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the unweighted terms by name; of a divided batch, this rank's parts of them.

        Where an objective reads gradients to the image, the teacher's graph is kept for it, and for other cohort members;
        no other's gradients may flow into it, as they would use it up.
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
        if total is None:  # every weight is zero at this moment: nothing to learn, but still a graph
            total = step.student.logits.sum() * 0.0
        return total, named

    def _measure(self, index: int, objective: Objective, step: Step) -> tuple[dict[str, Tensor], float]:
        """An objective's terms, and what they count for: of this rank's samples, or of all ranks' where it needs them."""
        division = step.batch.division
        if objective.active_needs.batch_global and division.sizes:
            taps = self._wanted[index]
            return objective(step.gathered(taps.student, taps.teacher)), division.copy_share
        with division.statistics():
            return objective(step), division.share

    def adversary_parameters(self) -> list[nn.Parameter]:
        return [parameter for objective in self.objectives for parameter in objective.adversary_parameters()]

    def adversary_groups(self) -> list[dict[str, Any]]:
        """The adversaries' parameters as groups of one optimiser, each with its learning rate."""
        groups = [
            {"params": list(objective.adversary_parameters()), "lr": objective.adversary_learning_rate}
            for objective in self.objectives
        ]
        return [group for group in groups if group["params"]]

    def adversary_loss(self, step: Step) -> Tensor | None:
        losses = [loss for objective in self.objectives if (loss := objective.adversary_loss(step)) is not None]
        return sum(losses[1:], losses[0]) if losses else None

    def trained_parameters(self) -> list[nn.Parameter]:
        """Connectors and the like, which train with the student."""
        own = {id(parameter) for parameter in self.adversary_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def deployed_state(self) -> dict[str, Tensor]:
        """The state of a composition of the `deploying` objectives alone; empty where the student is deployed as it is."""
        deploying_ = nn.ModuleList(each for each in self.objectives if _deploys(type(each)))
        return {f"objectives.{name}": tensor for name, tensor in deploying_.state_dict().items()}

    def deploy(self, student: nn.Module, teacher: nn.Module | None) -> nn.Module:
        """The network that ships: `student` itself, undisturbed, or a new one in evaluation mode."""
        for objective in self.objectives:
            student = objective.deploy(student, teacher)
        return student

    @staticmethod
    def _at(place: str, action: Any) -> Any:
        """Run `action`; problems that it raises get the objective's place in front of their pointers."""
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
    """Those of some objectives that ship more than the student."""
    return tuple(spec for spec in specs if _deploys(registry.find("objectives", spec["name"])))


def _deploys(objective: type[Objective]) -> bool:
    return objective.deploy is not Objective.deploy
