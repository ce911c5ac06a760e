"""DFAD: images on which the student is wrong."""

from dataclasses import dataclass
from typing import Annotated

from worker.distillation.parameters import Range
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Dfad(TrainedSource):
    """Plays a game: a generator looks for images on which students and teacher differ, and the students learn them.

    Fang et al., "Data-Free Adversarial Distillation", arXiv:1912.11006. It reads logits only: neither BatchNorm nor
    features are asked of the teacher. The preset `paper` is that for MNIST and CIFAR; beside it the authors train
    students by SGD (MNIST: rate 0.01 for 10,000 steps, batches of 512; CIFAR: 0.1, weight decay 5e-4, 125,000 steps,
    256). The difference of logits can be raised without end by raising the teacher's, at the expense of some classes,
    so `fast` asks for balanced classes too.
    """

    paper = "arXiv:1912.11006"
    objective_defaults = ({"name": "logit_distance", "weight": 1.0},)
    presets = {
        "fast": {**FAST, "generator_warm_up_steps": 0, "entropy_weight": 5.0},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_batch": 512, "entropy_weight": 0.0,
            "generator_warm_up_steps": 0, "student_steps_per_generator_step": 5, "student_images": "fresh",
            "pool_images": 0, "augmentation_probability": 0.0,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        latent: Annotated[int, Range(ge=1, le=4096), "Size of the generator's noise; published: 100 for MNIST, 256 for CIFAR."] = 100
        generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam; published: 0.001."] = 1e-3
        disagreement_weight: Annotated[float, Range(ge=0), "Of the mean absolute difference of logits, which the generator raises; published: 1."] = 1.0
        entropy_weight: Annotated[float | None, Range(ge=0), "Of the information-entropy loss of DAFL: 5 (fast, ours) or 0 (paper)."] = None
        # fmt: on

    def weights(self) -> Weights:
        return Weights(
            disagreement=self.settings.disagreement_weight, information_entropy=self.chosen("entropy_weight")
        )
