"""DFQ: a generator that matches the teacher's BatchNorm statistics and trains against the student."""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import Range
from worker.distillation.source import SourceNeeds
from worker.distillation.synthesis.batch_norm_statistics import check_kept
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.latents import BETAS
from worker.distillation.synthesis.trained import FAST, GeneratorParameters, TrainedSource


class Dfq(TrainedSource):
    """Trains a generator to match the teacher's BatchNorm statistics with confident and balanced predictions, and
    against the students.

    Choi et al., "Data-free network quantization with adversarial knowledge distillation", arXiv:2005.04136. The weights
    are those of a public benchmark of data-free methods (zju-vipa/CMI), where students take ten steps at temperature 20
    for each generator step, by SGD with a learning rate of 0.1. In the preset `paper`, as there, the students' images are made
    with the generator in evaluation mode.
    """

    paper = "arXiv:2005.04136"
    needs = SourceNeeds(teacher=True, teacher_gradient=True, batch_norm=True)
    presets = {
        "fast": {**FAST, "initial_generator_steps": 20},
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "sigmoid", "generator_batch": 256,
            "initial_generator_steps": 0, "student_steps_per_generator_step": 10, "student_images": "fresh",
            "pool_images": 0, "augmentation_probability": 0.0,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        latent: Annotated[int, Range(ge=1, le=4096), "Dimension of the generator's noise. The default is ours."] = 256
        generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the generator's Adam; published: 0.001."] = 1e-3
        divergence_weight: Annotated[float, Range(ge=0), "Weight of KL(teacher || student), which the generator maximises; published: 1."] = 1.0
        statistics_weight: Annotated[float, Range(ge=0), "Weight of the distance from the teacher's BatchNorm statistics; published: 1."] = 1.0
        one_hot_weight: Annotated[float, Range(ge=0), "Weight of the cross-entropy with the teacher's own predicted class; published: 1."] = 1.0
        balance_weight: Annotated[float, Range(ge=0), "Weight of the negative entropy of the mean prediction, in nats; published: 20."] = 20.0
        # fmt: on

    def weights(self) -> Weights:
        chosen = self.settings
        return Weights(
            one_hot=chosen.one_hot_weight,
            information_entropy=chosen.balance_weight * math.log(10),
            divergence=chosen.divergence_weight,
            batch_statistics=chosen.statistics_weight,
        )

    def betas(self) -> tuple[float, float]:
        return BETAS if self.settings.preset == "paper" else super().betas()

    def draws_in_evaluation(self) -> bool:
        return self.settings.preset == "paper"

    def check_teacher(self, teacher: Tapped, example: Tensor) -> None:
        if self.settings.statistics_weight:
            check_kept(teacher, example)
