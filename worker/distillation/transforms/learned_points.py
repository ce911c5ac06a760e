"""Weights rounded to points that are trained, while the weights are fixed."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.compression.clusters import k_means, quantile_centroids
from worker.distillation.compression.layers import inner_layers
from worker.distillation.compression.parametrised import bake, before, latent, parametrise, parts
from worker.distillation.compression.storage import Stored, nearest, note
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform


class Points(nn.Module):
    """A weight rounded to the nearest of its points, which are trained."""

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.bits = bits
        self.points = nn.Parameter(torch.zeros(2**bits, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return self.points[nearest(weight.detach().reshape(-1), self.points.detach())].reshape(weight.shape)


class LearnedPoints(Transform):
    """Keeps the initial weights, rounds each to the nearest of a few points of its layer, and trains the points.

    The differentiable quantisation of Polino et al., arXiv:1802.05668: the gradient of a point is the sum over the weights that are
    rounded to it; after each step the points are sorted. Biases and BatchNorm are trained too. It needs a network that has been
    trained: initial weights, or the procedure `apprentice` with scheme C. The paper starts from quantiles, and scales buckets of
    weights; k-means without buckets is ours.
    """

    paper = "arXiv:1802.05668"
    encodes = True

    @dataclass(frozen=True)
    class Parameters:
        bits: Annotated[int, Range(ge=1, le=8), "Bits of a weight; with n bits a layer has 2^n points."] = 4
        start: Annotated[
            Literal["k_means", "quantiles"],
            "The first points: clusters of the layer's weights, or their even quantiles.",
        ] = "k_means"
        ends: Annotated[
            Literal["8", "float", "same"],
            "The first and the last layer: 256 points, full precision and trained, or like the others.",
        ] = "8"

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        p = self.settings
        inner = setting.layers if p.ends == "same" else inner_layers(setting.layers)
        layers = dict.fromkeys(setting.layers, 8) if p.ends == "8" else {}
        layers |= dict.fromkeys(inner, p.bits)
        if not layers:
            words = "leaves nothing to quantise: the network has two layers or fewer, and `ends` keeps their precision"
            raise SpecError([Problem("/ends", words)], "Set `ends` to `same`.")
        return {"layers": layers}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path, bits in recipe["layers"].items():
            module: Any = network.get_submodule(path)
            if recipe.get("final"):
                note(module, Stored("codebook", bits), table=torch.zeros(2**bits, device=module.weight.device))
            else:
                parametrise(module, Points(module.weight, bits))
                latent(module).requires_grad_(False)

    @torch.no_grad()
    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        for _, module, part in parts(network, Points):
            weight = before(module, part).reshape(-1)
            if weight.device.type == "meta":
                return
            points = quantile_centroids(weight, len(part.points))
            part.points.copy_(k_means(weight, points) if self.settings.start == "k_means" else points)

    @torch.no_grad()
    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        for _, _, part in parts(network, Points):
            part.points.copy_(part.points.sort()[0])

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        for _, module, part in parts(network, Points):
            table = part.points.detach()
            note(module, Stored("codebook", part.bits), table=table)
            bake(module, part, part(before(module, part)))
        return {**recipe, "final": True}

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The bits of each layer."""
        return {"bits": dict(recipe["layers"])}
