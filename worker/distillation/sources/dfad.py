"""DFAD: a generator of images on which the student is wrong."""

from dataclasses import dataclass
from typing import Annotated

from worker.distillation.parameters import Range
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Dfad(TrainedSource):
    """Trains a generator to find images on which students and teacher differ, and trains the students on them.

    Fang et al., "Data-Free Adversarial Distillation", arXiv:1912.11006. It reads logits only: the teacher needs neither
    BatchNorm nor feature taps. The preset `paper` is that for MNIST and CIFAR; with it the authors train students by
    SGD (MNIST: learning rate 0.01 for 10,000 steps, batches of 512; CIFAR: 0.1, weight decay 5e-4, 125,000 steps, 256).
    The difference of logits can grow without bound if the teacher's logits grow, at the expense of some classes, so
    `fast` adds a loss for balanced classes.
    """

    paper = "arXiv:1912.11006"
    objective_defaults = ({"name": "logit_distance", "weight": 1.0},)
    presets = {
        "fast": {**FAST, "initial_generator_steps": 0, "entropy_weight": 5.0},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "tanh", "generator_batch": 512,
            "entropy_weight": 0.0,
            "initial_generator_steps": 0, "student_steps_per_generator_step": 5, "student_images": "fresh",
            "pool_images": 0, "augmentation_probability": 0.0,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        latent: Annotated[int, Range(ge=1, le=4096), "Dimension of the generator's noise; published: 100 for MNIST, 256 for CIFAR."] = 100
        generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the generator's Adam; published: 0.001."] = 1e-3
        disagreement_weight: Annotated[float, Range(ge=0), "Weight of the mean absolute difference of logits, which the generator maximises; published: 1."] = 1.0
        entropy_weight: Annotated[float | None, Range(ge=0), "Weight of the information-entropy loss of DAFL. If null: 5 (fast, ours) or 0 (paper)."] = None
        # fmt: on

    def weights(self) -> Weights:
        return Weights(
            disagreement=self.settings.disagreement_weight, information_entropy=self.chosen("entropy_weight")
        )
