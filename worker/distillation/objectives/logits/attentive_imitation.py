"""Attentive imitation: imitate a regression teacher, weighted by how correct it is."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.attentive import AttentionParameters, TeacherErrors
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class AttentiveImitation(Objective):
    """Squared error against the targets, plus squared error against the teacher's outputs, the latter weighted by
    how correct the teacher is on each sample.

    Saputra et al., "Distilling knowledge from a deep pose regressor network", arXiv:1908.00858: each sample's distance
    from the teacher is weighted by `1 - e / (max e - min e)`. e is the teacher's squared error on the sample; its
    extremes are taken over the training set before augmentation. `scaled`, the default, uses `e - min e` in place of e,
    so that the best output has weight 1 and the worst 0. `literal` is the formula as printed, which can be negative.
    Squares are summed over outputs.
    """

    paper = "arXiv:1908.00858"
    needs = ObjectiveNeeds(fields=("target",), logits=True, prepass=True, tasks=("regression",))

    @dataclass(frozen=True)
    class Parameters(AttentionParameters):
        """The weight of the targets, and the outputs that are a rotation."""

        targets: Annotated[
            float,
            Range(ge=0, le=1),
            "Weight of the error against the targets, from 0 to 1; the error against the teacher has the rest. "
            "The default is ours.",
        ] = 0.5

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.errors = TeacherErrors(self.settings)
        self.errors.check(context)

    def observe(self, step: Step) -> None:
        self.errors.observe(step)

    def forward(self, step: Step) -> dict[str, Tensor]:
        share = self.settings.targets
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            imitated = self.errors.attention(step) * self.errors.squared(student, teacher)
            return {
                "targets": share * self.errors.squared(student, step.batch.fields["target"]).mean(),
                "teacher": (1 - share) * imitated.mean(),
            }
