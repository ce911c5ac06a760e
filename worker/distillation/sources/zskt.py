"""Zero-shot knowledge transfer: adversarial images, and attention transfer."""

from dataclasses import dataclass
from typing import Annotated

from worker.distillation.parameters import Range
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Zskt(TrainedSource):
    """Trains a generator of images on which the students' predictions diverge from the teacher's; students train on
    each batch for many steps.

    Micaelli, Storkey, "Zero-shot knowledge transfer via adversarial belief matching", arXiv:1905.09768. Students learn
    predictions and spatial attention. The default weights of the two objectives are ours, since they learnt faster in
    short runs; published, with 10 classes: `kd` 0.1 at temperature 1 (a mean over classes too) and `attention_transfer`
    250. The authors' Adam (students 2e-3, generator 1e-3) follows a cosine schedule over 80,000 batches of 128. In the
    preset `paper`, as there, the generator makes images of the same noise until its next step; here they carry no
    gradient.
    """

    paper = "arXiv:1905.09768"
    gradient_norm = 5.0  # published
    training_defaults = {**TrainedSource.training_defaults, "learning_rate": 2e-3}
    objective_defaults = (
        {"name": "kd", "weight": 1.0, "temperature": 4.0},
        {"name": "attention_transfer", "weight": 50.0},
    )
    presets = {
        "fast": {**FAST, "initial_generator_steps": 0, "entropy_weight": 5.0, "divergence_weight": 1.0},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "affine", "generator_batch": 128,
            "entropy_weight": 0.0,
            "initial_generator_steps": 0, "student_steps_per_generator_step": 10, "student_images": "repeat",
            "pool_images": 0, "augmentation_probability": 0.0, "divergence_weight": None,  # one for each class
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the generator's Adam; published: 0.001."] = 1e-3
        divergence_weight: Annotated[float | None, Range(ge=0), "Weight of KL(teacher || student), which the generator maximises. If null: 1 (fast), or one over the "
"number of classes (paper), where KL is a mean over classes too."] = None
        entropy_weight: Annotated[float | None, Range(ge=0), "Weight of the information-entropy loss of DAFL. If null: 5 (fast, ours) or 0 (paper)."] = None
        # fmt: on

    def weights(self) -> Weights:
        chosen = self.chosen("divergence_weight")
        divergence = 1 / self.context.classes if chosen is None else chosen
        return Weights(divergence=divergence, information_entropy=self.chosen("entropy_weight"))
