"""Attentive imitation: a regression teacher is imitated where it is right."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.attentive import AttentionParameters, TeacherErrors
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class AttentiveImitation(Objective):
    """Squared error against the targets, and against the teacher's outputs as far as the teacher is right about them.

    Saputra et al., "Distilling knowledge from a deep pose regressor network", arXiv:1908.00858: each sample's distance
    from the teacher counts `1 - e / (max e - min e)`, e being the teacher's squared error there, its extremes those over
    the training set as it is before augmentation. `scaled`, the default, takes `e - min e`, so that the best answer
    counts 1 and the worst 0; `literal` is the formula as printed, which can be negative. Squares are summed over outputs.
    """

    paper = "arXiv:1908.00858"
    needs = ObjectiveNeeds(fields=("target",), logits=True, prepass=True, tasks=("regression",))

    @dataclass(frozen=True)
    class Parameters(AttentionParameters):
        """Whom to believe, and which outputs are a rotation."""

        targets: Annotated[
            float, Range(ge=0, le=1), "Share of the targets' error in the loss; the rest is the teacher's. Ours."
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
