"""Weights of small magnitude are zero."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.compression.layers import inner_layers
from worker.distillation.compression.parametrised import bake, before, latent, parametrise, parts
from worker.distillation.compression.storage import Stored, note
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform

FINENESS = 0.005
"""The masks are computed again when the share of zeros has to rise by this much, and at the end of the rise."""


class Masked(nn.Module):
    """A weight times a mask of 0 and 1. `level` is the share of zeros for which the mask was computed."""

    mask: Tensor
    level: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        self.register_buffer("level", torch.zeros(1, dtype=torch.float64, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Prune(Transform):
    """Sets the weights of smallest magnitude to zero, more of them in the course of the training; no step revives one unless it grows
    again before the masks are final.

    Han et al., "Deep compression", arXiv:1510.00149. The share of zeros rises as in Zhu and Gupta, arXiv:1710.01878: from `begin` to
    `end`, at the part t of the way, it is `sparsity (1 - (1 - t)^3)`. The export `packed` stores the other weights and one bit for
    every weight; a smaller file needs `share` too.
    """

    paper = "arXiv:1510.00149"
    encodes = True

    @dataclass(frozen=True)
    class Parameters:
        sparsity: Annotated[float, Range(gt=0, lt=1), "Share of the weights that are zero at the end."] = 0.9
        scope: Annotated[
            Literal["network", "layer"],
            "Whether weights are compared in the whole network, or each layer gets this share of zeros.",
        ] = "network"
        begin: Annotated[
            float, Range(ge=0, lt=1), "Share of the training after which the first weights become zero."
        ] = 0.1
        end: Annotated[float, Range(gt=0, le=1), "Share of the training after which the zeros stay as they are."] = 0.5
        ends: Annotated[bool, "Prune the first and the last layer too."] = True

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        if self.settings.begin >= self.settings.end:
            raise SpecError([Problem("/end", "must be greater than `begin`")])
        layers = setting.layers if self.settings.ends else inner_layers(setting.layers)
        if not layers:
            raise SpecError([Problem("/ends", "must be true: the network has only a first and a last layer")])
        return {"layers": list(layers)}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path in recipe["layers"]:
            module: Any = network.get_submodule(path)
            if recipe.get("final"):
                note(module, Stored("float", sparse=True))
            else:
                parametrise(module, Masked(module.weight))

    def level_at(self, progress: float) -> float:
        """The share of zeros at this progress."""
        p = self.settings
        done = min(1.0, max(0.0, (progress - p.begin) / (p.end - p.begin)))
        return p.sparsity * (1 - (1 - done) ** 3)

    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        wanted = self.level_at(progress)
        level = float(next(parts(network, Masked))[2].level)
        if wanted >= level + FINENESS or (wanted == self.settings.sparsity and level < wanted):
            self._mask(network, wanted)

    def settled(self, progress: float) -> bool:
        return progress >= self.settings.end

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        if float(next(parts(network, Masked))[2].level) < self.settings.sparsity:
            self._mask(network, self.settings.sparsity)
        for _, module, part in parts(network, Masked):
            note(module, Stored("float", sparse=True))
            bake(module, part, part(before(module, part)))
        return {**recipe, "final": True}

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The share of zeros of each layer, and of all."""
        weights = {path: network.get_submodule(path).weight.detach() for path in recipe["layers"]}  # type: ignore[operator]
        zeros = {path: int((weight == 0).sum()) for path, weight in weights.items()}
        whole = sum(zeros.values()) / sum(weight.numel() for weight in weights.values())
        return {"sparsity": whole, "sparsity_by_layer": {path: zeros[path] / weights[path].numel() for path in zeros}}

    @torch.no_grad()
    def _mask(self, network: nn.Module, level: float) -> None:
        found = [(latent(module).detach(), part) for _, module, part in parts(network, Masked)]
        groups = [found] if self.settings.scope == "network" else [[each] for each in found]
        for group in groups:
            magnitudes = torch.cat([weight.abs().reshape(-1) for weight, _ in group])
            zeros = round(level * len(magnitudes))
            kept = torch.ones(len(magnitudes), dtype=torch.bool, device=magnitudes.device)
            kept[magnitudes.argsort(stable=True)[:zeros]] = False
            for (weight, part), own in zip(group, kept.split([weight.numel() for weight, _ in group]), strict=True):
                part.mask.copy_(own.view_as(weight))
                part.level.fill_(level)
