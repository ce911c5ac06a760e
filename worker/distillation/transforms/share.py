"""Weights that share a few trained values."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.clusters import k_means, linear_centroids
from worker.distillation.compression.parametrised import bake, before, is_set, parametrise, parts
from worker.distillation.compression.storage import Stored, nearest, note
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform


class Shared(nn.Module):
    """A weight as `values[codes]`, once `active`; before that the weight itself. Code 0 stands for zero, which stays zero."""

    codes: Tensor
    active: Tensor

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.bits = bits
        self.values = nn.Parameter(torch.zeros(2**bits - 1, device=weight.device))
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device))
        self.register_buffer("active", torch.zeros(1, dtype=torch.bool, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return self.table()[self.codes.long()] if is_set(self.active) else weight

    def table(self) -> Tensor:
        """The values of all codes."""
        return torch.cat([self.values.new_zeros(1), self.values])

    @torch.no_grad()
    def begin(self, weight: Tensor) -> None:
        """Find the clusters of the weights that are not zero."""
        kept = weight[weight != 0]
        if len(kept):
            self.values.copy_(k_means(kept, linear_centroids(kept, len(self.values))))
        own = nearest(weight.reshape(-1), self.values.detach()) + 1
        self.codes.copy_((own.reshape(weight.shape) * (weight != 0)).to(torch.uint8))
        self.active.fill_(True)


class Share(Transform):
    """Replaces the weights of each layer by the values of a few clusters, which are trained on.

    Han et al., "Deep compression", arXiv:1510.00149. Clusters are found by k-means from even distances, of the weights that are not
    zero; the gradient of a value is the sum over the weights of its cluster. With `prune` before it and the export `huffman`, the
    file is smallest.
    """

    paper = "arXiv:1510.00149"
    encodes = True
    averages = False

    @dataclass(frozen=True)
    class Parameters:
        convolution_bits: Annotated[
            int, Range(ge=1, le=8), "Bits of a weight of a convolution; with n bits there are 2^n - 1 values and zero."
        ] = 8
        linear_bits: Annotated[int, Range(ge=1, le=8), "Bits of a weight of a linear layer."] = 5
        begin: Annotated[
            float, Range(ge=0, lt=1), "Share of the training after which weights share values; after `end` of `prune`."
        ] = 0.6

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        linear = {path for path in setting.layers if isinstance(network.get_submodule(path), nn.Linear)}
        p = self.settings
        return {"layers": {path: p.linear_bits if path in linear else p.convolution_bits for path in setting.layers}}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path, bits in recipe["layers"].items():
            module: Any = network.get_submodule(path)
            if recipe.get("final"):
                _note(module, torch.zeros(2**bits, device=module.weight.device), bits)
            else:
                parametrise(module, Shared(module.weight, bits))

    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        if progress < self.settings.begin:
            return
        for _, module, part in parts(network, Shared):
            if not bool(part.active):
                part.begin(before(module, part))

    def settled(self, progress: float) -> bool:
        return progress >= self.settings.begin

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        self.after_step(network, 1.0, setting)
        for _, module, part in parts(network, Shared):
            part.codes *= before(module, part) != 0  # what was pruned after the clusters were found
            _note(module, part.table(), part.bits)
            bake(module, part, part.table()[part.codes.long()])
        return {**recipe, "final": True}

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The bits of each layer."""
        return {"bits": dict(recipe["layers"])}


def _note(module: nn.Module, table: Tensor, bits: int) -> None:
    note(module, Stored("codebook", bits), table=table)
