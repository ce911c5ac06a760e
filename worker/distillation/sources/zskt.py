"""Zero-shot knowledge transfer: a game of divergence, and attention to copy."""

from dataclasses import dataclass
from typing import Annotated

from worker.distillation.parameters import Range
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Zskt(TrainedSource):
    """Makes images on which the students' predictions diverge from the teacher's; each batch is learnt for many steps.

    Micaelli, Storkey, "Zero-shot knowledge transfer via adversarial belief matching", arXiv:1905.09768. Students learn
    predictions and spatial attention. What they weigh is ours, since it learnt faster in short runs; published, at 10
    classes: `kd` 0.1 at temperature 1 (a mean over classes too) and `attention_transfer` 250. The authors' Adam
    (students 2e-3, generator 1e-3) goes down a cosine over 80,000 batches of 128. In the preset `paper`, as there, the
    generator makes images of one noise until its next step; here they carry no gradient.
    """

    paper = "arXiv:1905.09768"
    output = "affine"
    gradient_norm = 5.0  # published
    training_defaults = {**TrainedSource.training_defaults, "learning_rate": 2e-3}
    objective_defaults = (
        {"name": "kd", "weight": 1.0, "temperature": 4.0},
        {"name": "attention_transfer", "weight": 50.0},
    )
    presets = {
        "fast": {**FAST, "generator_warm_up_steps": 0, "entropy_weight": 5.0, "divergence_weight": 1.0},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_batch": 128, "entropy_weight": 0.0,
            "generator_warm_up_steps": 0, "student_steps_per_generator_step": 10, "student_images": "repeat",
            "pool_images": 0, "augmentation_probability": 0.0, "divergence_weight": None,  # as many classes as there are
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam; published: 0.001."] = 1e-3
        divergence_weight: Annotated[float | None, Range(ge=0), "Of KL(teacher || student), which the generator raises: 1 (fast), or one over the number of classes (paper), whose mean is over classes too."] = None
        entropy_weight: Annotated[float | None, Range(ge=0), "Of the information-entropy loss of DAFL: 5 (fast, ours) or 0 (paper)."] = None
        # fmt: on

    def weights(self) -> Weights:
        chosen = self.chosen("divergence_weight")
        divergence = 1 / self.context.classes if chosen is None else chosen
        return Weights(divergence=divergence, information_entropy=self.chosen("entropy_weight"))
