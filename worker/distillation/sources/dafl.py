"""DAFL: images without data, from a generator trained against the teacher.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186; the fast preset adds a pool of
images, affine views of them, and an adversarial term after Fang et al., arXiv:1912.11006.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from worker.distillation.parameters import Range
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource

MNIST = {
    "latent": 100, "generator_learning_rate": 0.2, "one_hot_weight": 1.0, "entropy_weight": 5.0, "activation_weight": 0.1,
}  # fmt: skip
PAPER = {
    **MNIST, "generator_resolution": "full", "generator_width": 128, "generator_output": "tanh", "generator_batch": 512, "adversarial_weight": 0.0,
    "initial_generator_steps": 0, "student_steps_per_generator_step": 1, "student_images": "pool",
    "pool_images": 0, "augmentation_probability": 0.0,
}  # fmt: skip
CIFAR = {**PAPER, "latent": 1000, "generator_learning_rate": 0.02, "generator_batch": 1024}


class Dafl(TrainedSource):
    """Trains a generator against the frozen teacher, pools its images, and draws the students' batches from the pool.

    The activation loss is computed on the input of the teacher's last linear layer: for LeNet-5, 84 numbers, where the
    authors' code uses the 120 before them. For a multi-label teacher, the one-hot and the entropy loss are computed for
    each label's binary decision. Both are ours.
    """

    paper = "arXiv:1904.01186"
    tasks = ("classification", "multi_label")
    epsilon = 0.8  # that of the authors
    sliced_training_defaults = {"learning_rate": 2e-3, "relative_rates": "auto"}
    presets = {
        "fast": {**FAST, **MNIST, "initial_generator_steps": 20, "adversarial_weight": 1.0},
        "paper": PAPER,
        "paper_cifar10": {**CIFAR, "one_hot_weight": 0.05, "activation_weight": 0.01},
        "paper_cifar100": {**CIFAR, "one_hot_weight": 0.5, "entropy_weight": 20.0},
        "paper_celeba": {**PAPER, "generator_learning_rate": 0.002, "one_hot_weight": 2.0},
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # more presets than in other sources, and they set more parameters
        # fmt: off
        preset: Annotated[Literal["fast", "paper", "paper_cifar10", "paper_cifar100", "paper_celeba"], "Preset that sets the parameters that are null: a cheap recipe of ours (`fast`), or the authors' for "
"MNIST (`paper`) or another dataset. The authors' values for CelebA are from a letter of theirs."] = "fast"  # type: ignore[assignment]
        latent: Annotated[int | None, Range(ge=1, le=4096), "Dimension of the generator's noise. If null: 100, or 1000 (CIFAR)."] = None  # type: ignore[assignment]
        generator_learning_rate: Annotated[float | None, Range(gt=0), "Learning rate of the generator's Adam. If null: 0.2, 0.02 (CIFAR) or 0.002 (CelebA)."] = None  # type: ignore[assignment]
        one_hot_weight: Annotated[float | None, Range(ge=0), "Weight of the one-hot loss. If null: 1, 0.05 (CIFAR-10), 0.5 (CIFAR-100) or 2 (CelebA)."] = None
        entropy_weight: Annotated[float | None, Range(ge=0), "Weight of the information-entropy loss (decimal logarithm). If null: 5, or 20 (CIFAR-100)."] = None
        activation_weight: Annotated[float | None, Range(ge=0), "Weight of the activation loss. If null: 0.1, or 0.01 (CIFAR-10)."] = None
        adversarial_weight: Annotated[float | None, Range(ge=0), "Weight of the students' disagreement with the teacher, relative to the size of its logits. If null: "
"1 (fast) or 0 (papers)."] = None
        # fmt: on

    def weights(self) -> Weights:
        return Weights(
            one_hot=self.chosen("one_hot_weight"),
            information_entropy=self.chosen("entropy_weight"),
            activation=self.chosen("activation_weight"),
            adversarial=self.chosen("adversarial_weight"),
        )
