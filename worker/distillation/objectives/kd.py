"""Knowledge distillation: softened logits."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.logits import softened_kl, standardise
from worker.distillation.objective import Needs, Objective, fp32, single
from worker.distillation.parameters import Range
from worker.distillation.step import Step


class KnowledgeDistillation(Objective):
    """Kullback-Leibler divergence of the student's softened predictions from the teacher's, times the squared temperature.

    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531. A temperature of 4 is what
    public benchmarks run (HobbitLong/RepDistiller, megvii-research/mdistiller). Standardised logits are those of Sun et
    al., "Logit standardization in knowledge distillation", arXiv:2403.01427, whose authors run a temperature of 2 and a
    weight of 9; with two classes only the sign of a row would survive.
    """

    paper = "arXiv:1503.02531"
    needs = Needs(logits=True)
    needs_when = {("standardise", True): Needs(logits=True, minimum_classes=3)}

    @dataclass(frozen=True)
    class Parameters:
        """How logits are softened."""

        temperature: Annotated[float, Range(gt=0), "Divides the logits of both networks before their softmax."] = 4.0
        standardise: Annotated[
            bool, "Shift and scale each row of logits to mean 0 and deviation 1 first (arXiv:2403.01427)."
        ] = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if self.parameters_.standardise:
                student, teacher = standardise(student), standardise(teacher)
            return {"kd": softened_kl(student, teacher, self.parameters_.temperature)}
