"""Layers of low rank in place of the student's layers."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from worker.distillation.compression.low_rank import (
    can_be_factorised,
    in_parts,
    set_factors,
    shape_of,
    svd_parameters,
    tucker_parameters,
)
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform

HALVINGS = 40


class Factorise(Transform):
    """Replaces each layer by two or three of lower rank, so that the network has a given number of parameters, and trains those.

    Denton et al., arXiv:1404.0736. They start from the singular value decomposition of the initial weights. All layers get the same
    share of the rank at which they would save nothing; a layer that saves nothing at its rank stays as it is. Singular values do not
    choose the ranks: those of a network that has not been trained say nothing.
    """

    paper = "arXiv:1404.0736"
    structural = True

    @dataclass(frozen=True)
    class Parameters:
        keep: Annotated[
            float, Range(gt=0, lt=1), "Largest share of the network's parameters that remains, if `parameters` is null."
        ] = 0.5
        parameters: Annotated[
            int | None, Range(ge=1), "Largest number of parameters that remains. If null: `keep` decides."
        ] = None
        convolutions: Annotated[
            Literal["svd", "tucker", "none"],
            "Convolutions: two layers, the second of size 1 (`svd`); three, of which the outer ones have size 1 (`tucker`, "
            "arXiv:1511.06530); or as they are.",
        ] = "svd"

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        layers = {path: network.get_submodule(path) for path in setting.layers}
        able = {path: each for path, each in layers.items() if self._can(each)}
        whole = sum(parameter.numel() for parameter in network.parameters())
        target = self.settings.parameters or int(self.settings.keep * whole)
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = whole - self._saved(able, middle) <= target
            low, high = (middle, high) if fits else (low, middle)
        ranks = self._ranks(able, low)
        left = whole - self._saved(able, low)
        if left > target or not ranks:
            name = "parameters" if self.settings.parameters else "keep"
            words = f"cannot be reached: with rank 1 everywhere the student has {left:,} of {whole:,} parameters"
            raise SpecError([Problem(f"/{name}", words)], "Raise it, or choose a smaller student.")
        return {"ranks": ranks}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path, ranks in recipe["ranks"].items():
            network.set_submodule(path, in_parts(network.get_submodule(path), ranks))

    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        assert setting.before is not None
        for path in recipe["ranks"]:
            parts: Any = network.get_submodule(path)
            if parts[0].weight.device.type != "meta":
                set_factors(parts, setting.before.get_submodule(path))

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The ranks of each layer."""
        return {"ranks": recipe["ranks"]}

    def _can(self, module: nn.Module) -> bool:
        linear = isinstance(module, nn.Linear)
        return can_be_factorised(module) and (linear or self.settings.convolutions != "none")

    def _tucker(self, module: nn.Module) -> bool:
        return self.settings.convolutions == "tucker" and not isinstance(module, nn.Linear) and shape_of(module)[2] > 1

    def _ranks_of(self, module: nn.Module, share: float) -> list[int]:
        """The ranks at this share of the rank at which the layer saves nothing."""
        out, into, kernel = shape_of(module)
        if self._tucker(module):
            return [max(1, round(share * into)), max(1, round(share * out))]
        return [max(1, round(share * out * into * kernel / (out + into * kernel)))]

    def _ranks(self, layers: dict[str, nn.Module], share: float) -> dict[str, list[int]]:
        """The ranks of the layers that save parameters."""
        found = {path: self._ranks_of(module, share) for path, module in layers.items()}
        return {path: ranks for path, ranks in found.items() if self._saving(layers[path], ranks) > 0}

    def _saving(self, module: nn.Module, ranks: list[int]) -> int:
        out, into, kernel = shape_of(module)
        count = tucker_parameters(module, ranks) if len(ranks) == 2 else svd_parameters(module, ranks[0])
        return out * into * kernel - count

    def _saved(self, layers: dict[str, nn.Module], share: float) -> int:
        return sum(max(0, self._saving(module, self._ranks_of(module, share))) for module in layers.values())
