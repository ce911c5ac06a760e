"""DeepInversion: optimise pixels until they match the teacher's BatchNorm statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from worker.distillation.parameters import Items, Range
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.families.canvas import scaled
from worker.distillation.synthesis.held import HeldOutSource
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.rounds import RoundParameters


class DeepInversion(HeldOutSource):
    """Optimises noise into smooth images of target classes that match the teacher's BatchNorm statistics.

    Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", arXiv:1912.08795, with the
    adaptive term: once students train, the images are also optimised for disagreement between students and teacher. The
    preset `paper` is that for CIFAR-10, as far as it is known; the students' settings were never published.

    Rounds may make smaller images than the contract's (`resolutions`), after the multi-resolution generation of Tran et al.,
    arXiv:2411.17046: these are cheaper to optimise and less noisy. Teacher and students read them as they are, if they accept
    the size, and the pool holds them enlarged. That paper's class activation maps and its loss for diverse embeddings are not
    implemented. Procedural images as a start are ours.
    """

    paper = "arXiv:1912.08795"
    presets = {
        "fast": {
            "generator_batch": 128, "iterations": 100, "initial_rounds": 6, "student_steps_per_round": 150, "rounds": 20,
            "pool_images": 8_192, "augmentation_probability": 0.5, "bounded": True,
        },
        "paper": {
            "generator_batch": 256, "iterations": 2_000, "initial_rounds": 40, "student_steps_per_round": 400, "rounds": None,
            "pool_images": 65_536, "augmentation_probability": 0.5, "bounded": False,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(RoundParameters):
        # fmt: off
        learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the pixels; published: 0.05 to 0.1."] = 0.1
        first_layer_weight: Annotated[float, Range(ge=0), "Weight of the first BatchNorm layer relative to the others; published: 1 for CIFAR, 10 for ImageNet."] = 1.0
        total_variation_weight: Annotated[float, Range(ge=0), "Weight of the norms of differences between neighbouring pixels; published: 2.5e-5."] = 2.5e-5
        energy_weight: Annotated[float, Range(ge=0), "Weight of the norm of the images. The default is ours."] = 0.0
        bounded: Annotated[bool | None, "Whether pixels stay within the contract's range. If null: true (fast) or false (paper)."] = None
        start: Annotated[Literal["noise", "procedural"], "What the pixels of a round start as: normal noise, or images as those of the source `procedural`."] = "noise"
        resolutions: Annotated[tuple[Annotated[float, Range(ge=0.125, le=1)], ...], Items(least=1, most=16), "Heights and widths of the images of one round after another, as fractions of the contract's; then from the first again."] = (1.0,)
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
        self.bounded = self.chosen("bounded")
        self.size = self.size_of(0)
        self.low, self.high = self.context.contract.pixel_range(self.context.device)

    @torch.no_grad()
    def begin(self, number: int) -> None:
        height, width = self.size = self.size_of(number)
        if self.settings.start == "noise":
            self.pixels.copy_(torch.randn(self.pixels.shape, generator=self.random))
        else:
            drawn = self.procedural_images(self.generator_batch, self.random)
            self.pixels[..., :height, :width] = scaled(drawn, height, width)
        self._bound()
        self.optimizer.state.clear()

    def size_of(self, number: int) -> tuple[int, int]:
        """Height and width of the images of a round."""
        contract, fractions = self.context.contract, self.settings.resolutions
        fraction = fractions[number % len(fractions)]
        return max(1, round(fraction * contract.height)), max(1, round(fraction * contract.width))

    def made(self) -> Tensor:
        """Small images are a corner of the pixels; the rest has no gradient."""
        height, width = self.size
        return self.pixels[..., :height, :width]

    def descend(self, loss: Tensor, step: int) -> None:
        super().descend(loss, step)
        self._bound()

    @torch.no_grad()
    def _bound(self) -> None:
        if self.bounded:
            self.pixels.clamp_(self.low, self.high)

    def state_dict(self) -> dict[str, Any]:
        return {"pixels": self.pixels.detach(), "size": self.size} | super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.pixels.copy_(state["pixels"])
        self.size = tuple(state["size"])
        super().load_state_dict(state)
