"""DeepInversion: optimise pixels until they match the teacher's BatchNorm statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from worker.distillation.parameters import Range
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.held import HeldOutSource
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.rounds import RoundParameters


class DeepInversion(HeldOutSource):
    """Optimises noise into smooth images of target classes that match the teacher's BatchNorm statistics.

    Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", arXiv:1912.08795, with the
    adaptive term: once students train, the images are also optimised for disagreement between students and teacher. The
    preset `paper` is that for CIFAR-10, as far as it is known; the students' settings were never published.
    """

    paper = "arXiv:1912.08795"
    presets = {
        "fast": {
            "generator_batch": 128, "iterations": 100, "initial_rounds": 6, "student_steps_per_round": 150, "rounds": 20,
            "pool_images": 8_192, "augmentation_probability": 0.5,
        },
        "paper": {
            "generator_batch": 256, "iterations": 2_000, "initial_rounds": 40, "student_steps_per_round": 400, "rounds": None,
            "pool_images": 65_536, "augmentation_probability": 0.5,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(RoundParameters):
        # fmt: off
        learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the pixels; published: 0.05 to 0.1."] = 0.1
        first_layer_weight: Annotated[float, Range(ge=0), "Weight of the first BatchNorm layer relative to the others; published: 1 for CIFAR, 10 for ImageNet."] = 1.0
        total_variation_weight: Annotated[float, Range(ge=0), "Weight of the norms of differences between neighbouring pixels; published: 2.5e-5."] = 2.5e-5
        energy_weight: Annotated[float, Range(ge=0), "Weight of the norm of the images. The default is ours."] = 0.0
        competition_weight: Annotated[float, Range(ge=0), "Weight of 1 - JS(teacher, student). The default is ours."] = 1.0
        # fmt: on

    def weights(self) -> Weights:
        chosen = self.settings
        return Weights(
            one_hot=chosen.one_hot_weight,
            competition=chosen.competition_weight,
            batch_statistics=chosen.statistics_weight,
            total_variation=chosen.total_variation_weight,
            energy=chosen.energy_weight,
        )

    def statistics(self) -> BatchStatistics:
        return BatchStatistics(first_weight=self.settings.first_layer_weight)

    def prepare(self) -> None:
        self.pixels = torch.nn.Parameter(torch.zeros_like(self.best))
        self.optimizer = torch.optim.Adam([self.pixels], self.settings.learning_rate)

    @torch.no_grad()
    def begin(self, number: int) -> None:
        self.pixels.copy_(torch.randn(self.pixels.shape, generator=self.random))
        self.optimizer.state.clear()

    def made(self) -> Tensor:
        return self.pixels

    def state_dict(self) -> dict[str, Any]:
        return {"pixels": self.pixels.detach()} | super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pixels.copy_(state["pixels"])
        super().load_state_dict(state)
