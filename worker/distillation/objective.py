"""Objective: what is measured between student, teacher, peers and samples.

An objective is an `nn.Module` that owns everything it needs (connectors, memory banks, margins, discriminators), so
its `state_dict()` is its whole resume state. It never calls a network, holds no optimiser and knows no epochs.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import OwnParameters
from worker.distillation.step import Outputs, Step


@dataclass(frozen=True)
class Needs:
    """What a job must offer for an objective to work; checked at submission from the catalogue."""

    fields: tuple[str, ...] = ()
    """Batch fields: `label`, `index`, `privileged`, `second_view`, ..."""
    teacher: bool = True
    """Reads the teacher's outputs."""
    logits: bool = False
    """Compares logits, so that teacher and student must have the same classes."""
    sampler: str | None = None
    """A demand on how batches are drawn, such as `per_class`."""
    input_gradient: bool = False
    """Differentiates with respect to the image, teacher included."""
    prepass: bool = False
    """Wants `observe` to see the training set once before the first step."""
    batch_global: bool = False
    """Its value is not a mean over samples, so several devices must gather."""
    minimum_classes: int = 1
    """The fewest outputs that it can be measured on, where that is more than its tasks ask for."""
    tasks: tuple[str, ...] = ("classification",)
    """The tasks whose networks it can be measured on; `EVERY_TASK` where logits, if read at all, are not taken for classes."""
    peers: bool = False
    """Reads the outputs of the other members of a cohort."""
    mirrored: bool = False
    """Reads the student's outputs for the images flipped left to right too."""

    @property
    def one_picture(self) -> bool:
        """Whether student and teacher must read the same picture: for a gradient to it, or a second view of it."""
        return self.teacher and (self.input_gradient or "second_view" in self.fields)


@dataclass(frozen=True)
class Taps:
    """Names of the activations that an objective wants captured."""

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True)
class TapMap:
    """The taps that a network offers.

    `shapes` (without the batch) of `PATH` and `PATH:pre`, in order of execution; `stages`: the last 4-D tap at each
    resolution (of the outermost modules), large to small; `inputs`: shapes of `PATH:in`, the input of a module;
    `classifier`: the `PATH:in` that the final classifier reads, None where there is none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...]
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    classifier: str | None = None
    leading: str = ""
    """How the taps begin among which defaults are found: all of them, or those of an ensemble's first member."""

    def shape(self, tap: str) -> tuple[int, ...] | None:
        """The shape of a tap without the batch, or None where the network has no such tap."""
        return self.shapes.get(tap, self.inputs.get(tap))

    def channels(self, tap: str) -> int | None:
        """The length of a tap's first dimension after the batch, or None where the network has no such tap."""
        shape = self.shape(tap)
        return shape[0] if shape else None

    def nearest(self, tap: str) -> str:
        """Words for an error: the names closest to one that does not exist."""
        close = difflib.get_close_matches(tap, [*self.shapes, *self.inputs], n=5, cutoff=0.4)
        return f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(self.shapes)}"


def refuse_default_tap(teacher: TapMap, found: Any, pointer: str) -> None:
    """See that it is clear whose features are compared where a job names no tap: each of several teachers has its own.

    Raises:
        SpecError: the teacher is an ensemble; the message has `found`, the default for its first member, as JSON.
    """
    if teacher.leading:
        words = "must say whose, since each of several teachers has features of its own; the first's are"
        raise SpecError([Problem(pointer, f"{words} {json.dumps(found)}")])


@dataclass
class BuildContext:
    """Real shapes and modules, given to `build` once: outputs of two samples, and the networks (to read, not to train)."""

    student: Outputs
    teacher: Outputs | None
    student_network: nn.Module
    teacher_network: nn.Module | None
    classes: int
    examples: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    peers: int = 0
    """How many other members the cohort has."""


class Objective(nn.Module):
    """One loss. Subclasses hold a `Parameters` dataclass, `paper`, `needs`, and `forward`."""

    paper: ClassVar[str] = ""
    needs: ClassVar[Needs] = Needs()
    needs_when: ClassVar[Mapping[tuple[str, Any], Needs]] = {}
    """Needs that replace `needs` when a parameter has a value: `{("standardise", True): Needs(minimum_classes=3)}`."""

    @dataclass(frozen=True)
    class Parameters:
        """No parameters."""

    parameters_ = OwnParameters()

    task: str = "classification"
    """The job's task, where it is another; set before `taps` is called."""

    def __init__(self, parameters: Any = None):
        super().__init__()
        self.parameters_ = self.Parameters() if parameters is None else parameters

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        """The taps to capture; raises SpecError (pointers relative to the objective, `/taps`) where they cannot be had."""
        return Taps()

    @property
    def active_needs(self) -> Needs:
        """What this objective needs with the parameters that it has."""
        for (parameter, value), needs in self.needs_when.items():
            if getattr(self.parameters_, parameter) == value:
                return needs
        return self.needs

    def build(self, context: BuildContext) -> None:
        """Make connectors, banks and buffers for the shapes in `context`; called once, before any forward.

        Raises:
            SpecError: the objective cannot work with these networks (pointers relative to the objective).
        """
        problems = _unmet(self.active_needs, context)
        if problems:
            raise SpecError([Problem("/name", problem) for problem in problems])

    def observe(self, step: Step) -> None:
        """See one batch of the pre-pass (un-augmented, teacher only, no gradient)."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Named, unweighted scalar terms; what a job's weight multiplies is their sum."""
        raise NotImplementedError

    def own_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of an adversary, trained by the engine with an optimiser of their own; all others train with the student."""
        return ()

    @property
    def own_learning_rate(self) -> float:
        """Of the adversary's optimiser (Adam)."""
        return 1e-3

    def own_step(self, step: Step) -> Tensor | None:
        """The adversary's loss, on a detached student; None where there is no adversary."""
        return None

    def deploy(self, student: nn.Module, teacher: nn.Module | None) -> nn.Module:
        """The network that ships; SimKD, for one, ships more than the student."""
        return student


def _unmet(needs: Needs, context: BuildContext) -> list[str]:
    problems = []
    if needs.teacher and context.teacher is None:
        problems.append("needs a teacher")
    if needs.peers and not context.peers:
        problems.append("learns from the other members of a cohort, and there are none: choose the procedure `mutual`")
    if context.classes < needs.minimum_classes:
        problems.append(f"needs at least {needs.minimum_classes} classes, not {context.classes}")
    if needs.logits and context.teacher is not None:
        of_student, of_teacher = context.student.logits.shape[1:], context.teacher.logits.shape[1:]
        if of_student != of_teacher:
            shapes = ["x".join(map(str, shape)) for shape in (of_student, of_teacher)]
            problems.append(f"compares logits, but the student gives {shapes[0]} and the teacher {shapes[1]}")
    return problems


def fp32(device: torch.device) -> torch.autocast:
    """A context in which autocast is off, for maths that needs single precision; cast inputs with `.float()` inside."""
    return torch.autocast(device.type, enabled=False)


def single(x: Tensor) -> Tensor:
    """`x` in single precision, or as it is where it has better."""
    return x if x.dtype == torch.float64 else x.float()
