"""Noise: images of independent normal numbers, from which students learn through the teacher's outputs alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from worker.distillation.data.samplers import generator
from worker.distillation.distributed.division import Division
from worker.distillation.parameters import Range
from worker.distillation.source import (
    DATA_FREE_TRAINING,
    LABEL_FREE_OBJECTIVES,
    LabelsOf,
    Position,
    Source,
    SourceNeeds,
    taught,
)
from worker.distillation.step import Batch

PREVIEWS = 64


class Noise(Source):
    """Draws every pixel from N(0, 1) in normalised space: the baseline "normal distribution" of data-free distillation.

    Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186, table 1 (88.01 % on MNIST, which a method
    without data must exceed). Nothing is trained, and the teacher needs no gradient. A batch depends on the seed and
    its number alone, and no image is drawn twice.
    """

    paper = "arXiv:1904.01186"
    when = {("labels", "teacher"): {"provides": ("label",)}}
    tasks = ("classification", "multi_label")
    needs = SourceNeeds(teacher=True)
    synthesises = True
    calibrates = False
    divides = True
    training_defaults = DATA_FREE_TRAINING
    objective_defaults = LABEL_FREE_OBJECTIVES

    @dataclass(frozen=True)
    class Parameters:
        labels: Annotated[
            LabelsOf, "Labels of the images. `teacher`: the teacher's predicted class; `none`: no labels."
        ] = "none"
        steps_per_epoch: Annotated[int, Range(ge=1), "Number of batches that count as an epoch."] = 120

    def steps_per_epoch(self) -> int:
        return self.settings.steps_per_epoch

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.number`, of `batch_size` images; with `labels`, the field `label` (B,) int64."""
        whole = self._draw(self.context.batch_size, "images", position.number)
        division = Division.of(len(whole), self.context.ranks)
        batch = Batch(whole[division.rows].to(self.context.device), division=division)
        return taught(batch, self.context) if self.settings.labels == "teacher" else batch

    def previews(self) -> dict[str, Tensor]:
        """The images of the first batch."""
        return {"samples": self._draw(self.context.batch_size, "images", 0)[:PREVIEWS].to(self.context.device)}

    def samples(self, count: int) -> Tensor:
        """Images that no student has seen, (count, C, H, W)."""
        return self._draw(count, "samples").to(self.context.device)

    def _draw(self, count: int, *of: int | str) -> Tensor:
        """Drawn on the CPU, so that the images are the same on every device."""
        contract, random = self.context.contract, generator(self.context.seed, *of)
        return torch.randn(count, contract.channels, contract.height, contract.width, generator=random)
