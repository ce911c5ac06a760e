"""Weights of few bits, rounded in every step of the training."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from worker.distillation.compression.layers import inner_layers
from worker.distillation.compression.learned_rounding import attach_learned, start_scales, waits_for_images
from worker.distillation.compression.parametrised import bake, before, parametrise, parts
from worker.distillation.compression.quantisers import SCHEMES, Quantiser
from worker.distillation.compression.storage import note
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform

IMAGES = 256
"""Images on which the first scales of activations are measured."""


class Quantise(Transform):
    """Rounds the weights of convolutions and linear layers to few values, in every forward pass; the gradient goes to weights of full
    precision that are kept beside them.

    Polino et al., arXiv:1802.05668 (`bucket`), with other schemes for the rounding. Biases and BatchNorm keep full precision. The
    first and the last layer have 8 bits, or full precision as in the papers of `ttq` and `wrpn`. Activations can be rounded too: the
    inputs of the same layers, with trained scales as in `lsq`. No runtime computes in so few bits; the ONNX file rounds as the student does.
    """

    paper = "arXiv:1802.05668"
    encodes = True
    when: ClassVar = {("activations", bits): {"calibration_images": IMAGES} for bits in range(2, 9)}

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
        activations: Annotated[
            int | None,
            Range(ge=2, le=8),
            "Bits of the inputs of layers (arXiv:1902.08153), at the first and the last layer as `ends` says. Their first scales are measured "
            "on training images. If null: full precision.",
        ] = None

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        p = self.settings
        inner = setting.layers if p.ends == "same" else inner_layers(setting.layers)
        layers: dict[str, Any] = {path: [p.scheme, 2 if p.scheme == "ttq" else p.bits] for path in inner}
        if p.ends == "8":
            layers |= {path: ["minmax", 8] for path in setting.layers if path not in layers}
        if not layers:
            words = "leaves nothing to quantise: the network has two layers or fewer, and `ends` keeps their precision"
            raise SpecError([Problem("/ends", words)], "Set `ends` to `same`.")
        if p.activations is None:
            return {"layers": layers}
        return {"layers": layers, "activations": {path: p.activations if path in inner else 8 for path in layers}}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        for path, (scheme, bits) in recipe["layers"].items():
            module: Any = network.get_submodule(path)
            quantiser = SCHEMES[scheme](tuple(module.weight.shape), bits)
            if recipe.get("final"):
                _note(module, quantiser, module.weight)
            else:
                parametrise(module, quantiser.to(module.weight.device))
        attach_learned(network, recipe.get("activations", {}))

    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        for _, module, quantiser in parts(network, Quantiser):
            quantiser.start(before(module, quantiser))

    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        if waits_for_images(network):
            start_scales(network, setting.images(IMAGES))

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        self.after_step(network, 1.0, setting)
        for _, module, quantiser in parts(network, Quantiser):
            weight = before(module, quantiser)
            _note(module, quantiser, weight)
            bake(module, quantiser, quantiser.quantised(weight))
        return {**recipe, "final": True}

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The bits of each layer's weights, and of its input if that is rounded."""
        bits: dict[str, Any] = {"bits": {path: bits for path, (_, bits) in recipe["layers"].items()}}
        return bits | ({"activation_bits": recipe["activations"]} if "activations" in recipe else {})


def _note(module: nn.Module, quantiser: Quantiser, weight: Any) -> None:
    tables = {name: table.to(weight.device) for name, table in quantiser.tables(weight).items()}
    note(module, quantiser.stored(), **tables)
