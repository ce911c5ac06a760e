"""DAFL: images without data, from a generator that pleases the teacher.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186; the fast preset adds a pool of
images, affine views of them, and an adversarial term after Fang et al., arXiv:1912.11006.
"""

from dataclasses import dataclass
from typing import Annotated

from worker.distillation.parameters import Range
from worker.distillation.synthesis.judge import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Dafl(TrainedSource):
    """Trains a generator against the frozen teacher, pools its images, and draws the students' batches from the pool.

    Of a teacher of several labels, the one-hot and the entropy loss are those of each label, for or against: ours.
    """

    paper = "arXiv:1904.01186"
    tasks = ("classification", "multi_label")
    epsilon = 0.8  # the authors'
    presets = {
        "fast": {**FAST, "generator_warm_up_steps": 20, "adversarial_weight": 2.0},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_batch": 512, "adversarial_weight": 0.0,
            "generator_warm_up_steps": 0, "student_steps_per_generator_step": 1, "student_images": "pool",
            "pool_images": 0, "augmentation_probability": 0.0,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        latent: Annotated[int, Range(ge=1, le=4096), "Size of the generator's noise; published: 100 for MNIST, 1000 for CIFAR."] = 100
        generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam; published: 0.2 for MNIST, 0.02 for CIFAR."] = 0.2
        one_hot_weight: Annotated[float, Range(ge=0), "Of the one-hot loss; published: 1 for MNIST, 0.05 for CIFAR-10."] = 1.0
        entropy_weight: Annotated[float, Range(ge=0), "Of the information-entropy loss (decimal logarithm)."] = 5.0
        activation_weight: Annotated[float, Range(ge=0), "Of the activation loss; published: 0.1 for MNIST, 0.01 for CIFAR-10."] = 0.1
        adversarial_weight: Annotated[float | None, Range(ge=0), "Of the students' disagreement with the teacher, relative to the size of its logits: 2 (fast) or 0 (paper)."] = None
        # fmt: on

    def weights(self) -> Weights:
        chosen = self.parameters
        return Weights(
            one_hot=chosen.one_hot_weight,
            information_entropy=chosen.entropy_weight,
            activation=chosen.activation_weight,
            adversarial=self.chosen("adversarial_weight"),
        )
