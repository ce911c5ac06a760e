"""Knowledge distillation with softened logits."""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.logits import Standardise, binary_kl, softened_kl, standardise
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class KnowledgeDistillation(Objective):
    """Kullback-Leibler divergence of the student's softened predictions from the teacher's, times the squared
    temperature.

    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531. A temperature of 4 is what
    public benchmarks use (HobbitLong/RepDistiller, megvii-research/mdistiller). Standardised logits are those of Sun et
    al., "Logit standardization in knowledge distillation", arXiv:2403.01427, whose authors use a temperature of 2 and a
    weight of 9; with two classes, standardisation keeps only the sign of a row. Multi-label networks have a sigmoid for
    each label: then the divergence is computed for each label's own yes or no, as in Yang et al., "Multi-label
    knowledge distillation", arXiv:2308.06453; here softened, and as a mean over labels.
    """

    paper = "arXiv:1503.02531"
    needs = ObjectiveNeeds(logits=True)
    when = {
        ("outputs", "sigmoid"): {"needs": ObjectiveNeeds(logits=True, tasks=("multi_label",))},
        ("standardise", True): {"needs": ObjectiveNeeds(logits=True, minimum_classes=3)},
    }

    @dataclass(frozen=True)
    class Parameters:
        """The temperature, and the normalisation of the logits."""

        temperature: Annotated[
            float, Range(gt=0), "Temperature: divides the logits of both networks before the softmax."
        ] = 4.0
        standardise: Standardise = False
        outputs: Annotated[
            Literal["softmax", "sigmoid"],
            "How outputs become probabilities: one softmax over all classes, or a sigmoid for each label.",
        ] = "softmax"

    def build(self, context: BuildContext) -> None:
        super().build(context)
        if self.settings.standardise and self.settings.outputs == "sigmoid":
            raise SpecError([Problem("/standardise", 'cannot be combined with `outputs="sigmoid"`')])

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if self.settings.standardise:
                student, teacher = standardise(student), standardise(teacher)
            temperature = self.settings.temperature
            if self.settings.outputs == "sigmoid":
                return {"kd": binary_kl(student / temperature, teacher / temperature).mean() * temperature**2}
            return {"kd": softened_kl(student, teacher, temperature)}
