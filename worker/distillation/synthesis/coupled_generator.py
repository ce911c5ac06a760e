"""A generator that approximates the inverse of a teacher: its hidden maps have the shapes of the teacher's.

Chen et al., "Coupling the Generator with Teacher for Effective Data-Free Knowledge Distillation", ICCV 2025. Shapes: B batch,
Z latent size, C channels, H height, W width, K classes, D penultimate features.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics, StatisticsReader
from worker.distillation.synthesis.generator import Ending, Output

SMALLEST = 1e-5


class CoupledGenerator(nn.Module):
    """From noise to maps of the given shapes, deepest first, and then to an image of the contract.

    A linear layer makes the deepest map. Each further map is the one before, enlarged by nearest neighbours and convolved.
    """

    def __init__(self, contract: InputContract, latent: int, shapes: Sequence[tuple[int, int, int]], output: Output):
        """`shapes`: (C, H, W) of each map, deepest first."""
        super().__init__()
        self.shapes = [*shapes, (contract.channels, contract.height, contract.width)]
        channels, height, width = self.shapes[0]
        self.stem = nn.Linear(latent, channels * height * width)
        self.norms = nn.ModuleList(nn.BatchNorm2d(shape[0]) for shape in shapes)
        narrow = [shape[0] for shape in self.shapes]
        last = len(shapes) - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*pair, 3, padding=1, bias=number == last) for number, pair in enumerate(pairwise(narrow))
        )
        self.ending = Ending(contract, output)

    def forward(self, noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W), float32."""
        return self.with_maps(noise_BZ)[0]

    def with_maps(self, noise_BZ: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W), and the maps in the order of their shapes."""
        hidden = self.norms[0](self.stem(noise_BZ).unflatten(1, self.shapes[0]))
        maps = [hidden]
        for number, (convolution, shape) in enumerate(zip(self.convolutions, self.shapes[1:], strict=True)):
            hidden = convolution(F.interpolate(hidden, shape[1:], mode="nearest"))
            if number + 1 < len(self.norms):
                hidden = F.leaky_relu(self.norms[number + 1](hidden), 0.2)
                maps.append(hidden)
        return self.ending(hidden.float()).contiguous(), maps


class MapReader(StatisticsReader):
    """Also keeps the input of some normalisations, by their number in the order of execution."""

    def __init__(self, numbers: Sequence[int] | None = None):
        """`numbers` are those to be kept; None for all."""
        super().__init__()
        self.numbers = numbers
        self.maps: dict[int, Tensor] = {}

    def _note(self, x: Any, mean_C: Any, variance_C: Any) -> None:
        number = len(self.found)
        if self.numbers is None or number in self.numbers:
            self.maps[number] = x
        super()._note(x, mean_C, variance_C)


class CoupledStatistics(BatchStatistics):
    """The distance of `BatchStatistics`, and the teacher's maps as they would be with its running statistics."""

    def __init__(self, numbers: Sequence[int], momentum: float):
        """`numbers`: the normalisations whose inputs are maps."""
        super().__init__(momentum=momentum)
        self._reader = self._kept = MapReader(numbers)
        self._targets: dict[int, Tensor] = {}

    def distance(self) -> Tensor:
        for number, x in self._kept.maps.items():
            own_mean, own_variance, mean, variance = (each.detach()[:, None, None] for each in self._kept.found[number])
            normal = (x.detach().float() - own_mean) / (own_variance + SMALLEST).sqrt()
            self._targets[number] = normal * variance.sqrt() + mean
        self._kept.maps.clear()
        return super().distance()

    def take(self) -> list[Tensor]:
        """The maps of the batch that was measured last, in the order of their numbers; they are forgotten here."""
        found = [self._targets[number] for number in sorted(self._targets)]
        self._targets.clear()
        return found


def map_numbers(teacher: Tapped, example: Tensor) -> dict[int, tuple[int, int, int]]:
    """The last normalisation of a map at each resolution, by its number, and the map's shape (C, H, W); deepest last.

    Raises:
        SpecError: the teacher normalises no maps by running statistics.
    """
    with torch.no_grad(), MapReader() as reader:
        teacher(example)
    last = {tuple(x.shape[2:]): (number, x.shape[1:]) for number, x in reader.maps.items() if x.ndim == 4}
    if not last:
        words = "has no BatchNorm layers of feature maps with running statistics, which the source must match"
        raise SpecError([Problem("/teacher", words)], "Choose the source `dfad` or `dafl`.")
    return {number: (shape[0], shape[1], shape[2]) for number, shape in sorted(last.values())}


def coupling(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Sum of the mean squared differences between the generator's maps, deepest first, and the teacher's, deepest last."""
    pairs = zip(maps, reversed(targets), strict=True)
    return torch.stack([F.mse_loss(own.float(), target) for own, target in pairs]).sum()


class InverseClassifier:
    """The features that a linear classifier maps to its smoothed targets, by the pseudo-inverse of its weights."""

    SMOOTHING = 0.1
    LEAST_SINGULAR = 0.1
    """Smaller singular values are raised to this one (published)."""

    def __init__(self, weight_KD: Tensor, bias_K: Tensor | None):
        left, values, right = torch.linalg.svd(weight_KD.detach().float().T, full_matrices=False)
        self.inverse_KD = right.T @ (left / values.clamp_min(self.LEAST_SINGULAR)).T
        classes = len(weight_KD)
        self.logit = math.log((1 - self.SMOOTHING) * max(1, classes - 1) / self.SMOOTHING)
        self.bias_K = torch.zeros(classes, device=weight_KD.device) if bias_K is None else bias_K.detach().float()

    def alignment(self, feature_BD: Tensor, target_B: Tensor) -> Tensor:
        """Mean absolute cosine between what features differ by from their target's and the direction that changes all logits
        alike, in which features of a class may differ."""
        one_hot = F.one_hot(target_B, len(self.bias_K)).float()
        away = feature_BD - (self.logit * one_hot - self.bias_K) @ self.inverse_KD
        alike = self.inverse_KD.sum(dim=0).expand_as(away)
        return F.cosine_similarity(away, alike, dim=1).abs().mean()


def inverse_classifier(teacher: Tapped, tap: str) -> InverseClassifier:
    """That of the layer whose input is the tap `PATH:in`."""
    layer: Mapping[str, Tensor] = dict(teacher.network.get_submodule(tap.removesuffix(":in")).named_parameters())
    return InverseClassifier(layer["weight"].flatten(1), layer.get("bias"))
