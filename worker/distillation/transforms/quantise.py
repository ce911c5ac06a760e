"""Weights of few bits, rounded in every step of the training."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from worker.distillation.compression.layers import inner_layers
from worker.distillation.compression.parametrised import bake, before, parametrise, parts
from worker.distillation.compression.quantisers import SCHEMES, Quantiser
from worker.distillation.compression.storage import note
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform


class Quantise(Transform):
    """Rounds the weights of convolutions and linear layers to few values, in every forward pass; the gradient goes to weights of full
    precision that are kept beside them.

    Polino et al., arXiv:1802.05668 (`bucket`), with other schemes for the rounding. Biases and BatchNorm keep full precision. The
    first and the last layer have 8 bits, or full precision as in the papers of `ttq` and `wrpn`.
    """

    paper = "arXiv:1802.05668"
    encodes = True

    @dataclass(frozen=True)
    class Parameters:
        scheme: Annotated[
            Literal["lsq", "minmax", "bucket", "ttq", "wrpn"],
            "How weights are rounded. `lsq`: trained scales a channel (arXiv:1902.08153); `minmax`: scales of the largest weight of a "
            "channel; `bucket`: 256 values share least value and step (arXiv:1802.05668); `ttq`: three trained values "
            "(arXiv:1612.01064); `wrpn`: clipped to [-1, 1] (arXiv:1709.01134).",
        ] = "lsq"
        bits: Annotated[int, Range(ge=2, le=8), "Bits of a weight. `ttq` always has three values, in 2 bits."] = 4
        ends: Annotated[
            Literal["8", "float", "same"],
            "The first and the last layer: 8 bits with `minmax`, full precision, or like the others.",
        ] = "8"

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        p = self.settings
        inner = setting.layers if p.ends == "same" else inner_layers(setting.layers)
        layers: dict[str, Any] = {path: [p.scheme, 2 if p.scheme == "ttq" else p.bits] for path in inner}
        if p.ends == "8":
            layers |= {path: ["minmax", 8] for path in setting.layers if path not in layers}
        if not layers:
            words = "leaves nothing to quantise: the network has two layers or fewer, and `ends` keeps their precision"
            raise SpecError([Problem("/ends", words)], "Set `ends` to `same`.")
        return {"layers": layers}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path, (scheme, bits) in recipe["layers"].items():
            module: Any = network.get_submodule(path)
            quantiser = SCHEMES[scheme](tuple(module.weight.shape), bits)
            if recipe.get("final"):
                _note(module, quantiser, module.weight)
            else:
                parametrise(module, quantiser.to(module.weight.device))

    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        for _, module, quantiser in parts(network, Quantiser):
            quantiser.start(before(module, quantiser))

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        for _, module, quantiser in parts(network, Quantiser):
            weight = before(module, quantiser)
            _note(module, quantiser, weight)
            bake(module, quantiser, quantiser.quantised(weight))
        return {**recipe, "final": True}

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The bits of each layer."""
        return {"bits": {path: bits for path, (_, bits) in recipe["layers"].items()}}


def _note(module: nn.Module, quantiser: Quantiser, weight: Any) -> None:
    tables = {name: table.to(weight.device) for name, table in quantiser.tables(weight).items()}
    note(module, quantiser.stored(), **tables)
