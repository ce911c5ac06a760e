"""Objective: a loss computed from the outputs of student, teacher and peers, and from the samples.

An objective is an `nn.Module` that owns everything it needs (connectors, memory banks, margins, discriminators), so its
`state_dict()` is all that a resume needs. It never calls a network, holds no optimiser and does not depend on epochs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.method import Method
from worker.distillation.step import Outputs, Step


@dataclass(frozen=True)
class ObjectiveNeeds:
    """What an objective requires of a job; checked at submission from the catalogue."""

    fields: tuple[str, ...] = ()
    """Batch fields: `label`, `index`, `privileged`, `second_view`, ..."""
    teacher: bool = True
    """Reads the teacher's outputs."""
    logits: bool = False
    """Compares logits, so that teacher and student must have the same classes."""
    sampler: str | None = None
    """The sampler that it requires, such as `per_class`."""
    input_gradient: bool = False
    """Differentiates with respect to the image, teacher included."""
    prepass: bool = False
    """`observe` must see the training set once before the first step."""
    batch_global: bool = False
    """Its value is not a mean over samples, so several devices must gather their outputs."""
    minimum_classes: int = 1
    """Minimum number of outputs, if more than its tasks require."""
    tasks: tuple[str, ...] = ("classification",)
    """The tasks whose networks it can compare; `EVERY_TASK` if it reads no logits or does not treat them as classes."""
    peers: bool = False
    """Reads the outputs of the other members of a cohort."""
    mirrored: bool = False
    """Also reads the student's outputs for the images flipped left to right."""

    @property
    def one_image(self) -> bool:
        """Whether student and teacher must read the same image: for a gradient with respect to it, or a second view
        of it."""
        return self.teacher and (self.input_gradient or "second_view" in self.fields)


@dataclass
class BuildContext:
    """Real shapes and modules for `build`: outputs of two samples, and the networks (to read, not to train)."""

    student: Outputs
    teacher: Outputs | None
    student_network: nn.Module
    teacher_network: nn.Module | None
    classes: int
    examples: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    peers: int = 0
    """Number of other members in the cohort."""


class Objective(Method, nn.Module):
    """One loss. Subclasses hold a `Parameters` dataclass, `paper`, `needs`, and `forward`."""

    needs: ClassVar[ObjectiveNeeds] = ObjectiveNeeds()

    task: str
    """The job's task, by name; set before `taps` is called."""

    def __init__(self, settings: Any = None):
        nn.Module.__init__(self)
        Method.__init__(self, settings)

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        """The taps to capture.

        Raises:
            SpecError: the networks do not have these taps (pointers relative to the objective, such as `/taps`).
        """
        return Taps()

    @property
    def active_needs(self) -> ObjectiveNeeds:
        """What this objective requires with its parameter values."""
        return self.effective("needs")

    def build(self, context: BuildContext) -> None:
        """Create connectors, banks and buffers for the shapes in `context`; called once, before any forward.

        Raises:
            SpecError: the objective cannot work with these networks (pointers relative to the objective).
        """
        problems = _unmet(self.active_needs, context)
        if problems:
            raise SpecError([Problem("/name", problem) for problem in problems])

    def observe(self, step: Step) -> None:
        """Read one batch of the pre-pass (un-augmented, teacher only, no gradient)."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Named, unweighted scalar terms; the job's weight multiplies their sum."""
        raise NotImplementedError

    def adversary_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of an adversary, which the engine trains with a separate optimiser; all others train with the
        student."""
        return ()

    @property
    def adversary_learning_rate(self) -> float:
        """Learning rate of the adversary's optimiser (Adam)."""
        return 1e-3

    def adversary_loss(self, step: Step) -> Tensor | None:
        """The adversary's loss, on a detached student; None without an adversary."""
        return None

    def deploy(self, student: nn.Module, teacher: nn.Module | None) -> nn.Module:
        """The network to export. SimKD, for example, exports more than the student."""
        return student


def _unmet(needs: ObjectiveNeeds, context: BuildContext) -> list[str]:
    problems = []
    if needs.teacher and context.teacher is None:
        problems.append("needs a teacher")
    if needs.peers and not context.peers:
        problems.append("needs other members of a cohort, and there are none: choose the procedure `mutual`")
    if context.classes < needs.minimum_classes:
        problems.append(f"needs at least {needs.minimum_classes} classes, not {context.classes}")
    if needs.logits and context.teacher is not None:
        of_student, of_teacher = context.student.logits.shape[1:], context.teacher.logits.shape[1:]
        if of_student != of_teacher:
            shapes = ["x".join(map(str, shape)) for shape in (of_student, of_teacher)]
            problems.append(f"compares logits, but the student has {shapes[0]} and the teacher {shapes[1]}")
    return problems
