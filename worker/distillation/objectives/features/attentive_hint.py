"""Attentive hints: match a regression teacher's features, weighted by how correct its output is."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from worker.distillation.losses.attentive import AttentionParameters, TeacherErrors
from worker.distillation.losses.embeddings import EmbeddingObjective
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import TapPair
from worker.distillation.precision import fp32
from worker.distillation.step import Step


class AttentiveHint(EmbeddingObjective):
    """Squared distance of the student's features from the teacher's, each sample weighted by how correct the teacher's
    output is.

    Saputra et al., "Distilling knowledge from a deep pose regressor network", arXiv:1908.00858, whose layers are fully
    connected. The weights are the attention of `attentive_imitation`. Squares are summed over features. Features of
    another width pass a linear adaptor, and maps are averaged over their pixels first (both ours).
    """

    paper = "arXiv:1908.00858"
    needs = ObjectiveNeeds(fields=("target",), logits=True, prepass=True, tasks=("regression",))

    @dataclass(frozen=True)
    class Parameters(AttentionParameters):
        """The taps, and the outputs that are a rotation."""

        tap: Annotated[
            TapPair | None, "The student's and the teacher's tap. If null: the inputs of the last layers."
        ] = None

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.errors = TeacherErrors(self.settings)
        self.errors.check(context)
        student, teacher = context.student.taps[self.tap[0]], (context.teacher or context.student).taps[self.tap[1]]
        alike = student.shape[1] == teacher.shape[1]
        self.adaptor = nn.Identity() if alike else nn.Linear(student.shape[1], teacher.shape[1])

    def observe(self, step: Step) -> None:
        self.errors.observe(step)

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = self.embeddings(step)
            distance = (self.adaptor(student) - teacher).square().sum(1)
            return {"hint": (self.errors.attention(step) * distance).mean()}
