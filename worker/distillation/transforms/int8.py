"""Weights and activations in 8 bits, for integer arithmetic at inference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.compression.activations import INPUT, attach, measure_ranges, roundings
from worker.distillation.compression.compensated import compensated, second_moments
from worker.distillation.compression.folded import norms_after, rounded_outputs
from worker.distillation.compression.integer_form import FOLDED, INTEGER
from worker.distillation.compression.parametrised import bake, before, is_set, parametrise, parts
from worker.distillation.compression.quantisers import SMALLEST, MinMax
from worker.distillation.compression.statistics import correct, moments_of
from worker.distillation.compression.storage import note, stored_of
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform

BITS = 8
MOST_CHANNELS = 4


class Integer(MinMax):
    """A layer's weight in 8 bits with one scale for each channel, once activations are rounded too.

    x86 processors without VNNI multiply two neighbouring uint8 inputs by their int8 weights and add both products in int16, which
    saturates. A channel's scale therefore follows from the largest sum of two neighbouring weights of the same sign, so that 255
    times the sum of their codes fits; it is at least the scale of the largest weight. Depthwise convolutions add in int32.
    """

    active: Tensor

    def __init__(self, layer: nn.Module):
        weight: Any = layer.weight
        super().__init__(tuple(weight.shape), BITS)
        self.depthwise = getattr(layer, "groups", 1) > 1 and self.shape[1] == 1
        self.register_buffer("active", weight.new_zeros(1).bool())

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        if self.depthwise:
            return super().tables(weight)
        return {"scale": (largest_pairs(weight.detach()) / self.largest).clamp(min=SMALLEST)}

    def forward(self, weight: Tensor) -> Tensor:
        return super().forward(weight) if is_set(self.active) else weight


def largest_pairs(weight: Tensor) -> Tensor:
    """The largest absolute sum (O,) of two weights of the same sign that runtimes read one after the other: the input channels of each place
    in the kernel. `weight` is (O, I, ...)."""
    ordered = weight.movedim(1, -1).flatten(1)
    pairs = F.pad(ordered, (0, ordered.shape[1] % 2)).unflatten(1, (-1, 2))
    return torch.maximum(pairs.relu().sum(2), (-pairs).relu().sum(2)).amax(1)


class Int8(Transform):
    """Rounds weights to int8, one scale for each channel, and the inputs of layers to uint8; the ONNX file computes in integers.

    Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", arXiv:1712.05877.
    BatchNorm after a layer is folded into its scales in the ONNX file; in training it stays as it is. Ranges of activations are those
    with the least squared error on calibration images: training images, or synthesised ones in a job without data. A student that was
    not trained with rounded values is rounded so that the following weights make up for each error (GPTQ, arXiv:2210.17323), and its
    BatchNorm statistics are corrected by what the rounding shifts (arXiv:1906.04721). The file is
    about 3.5 times smaller if the student is not tiny; the report has its measured latency, since networks with few convolutions do not
    become faster.
    """

    paper = "arXiv:1712.05877"
    encodes = True
    calibration_images = 512

    @dataclass(frozen=True)
    class Parameters:
        aware: Annotated[
            bool, "Train with rounded weights and activations (quantisation-aware), or only round at the end."
        ] = True
        begin: Annotated[
            float, Range(ge=0, lt=1), "Share of the training after which values are rounded, if `aware`."
        ] = 0.5
        image: Annotated[
            Literal["float", "8"],
            "The image that the first convolution reads, if it has at most 4 channels: as it is, so that this layer is computed in float32, or "
            "rounded too.",
        ] = "float"
        images: Annotated[
            int, Range(ge=1, le=100_000), "Number of images on which the ranges of activations are measured."
        ] = 512

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        if any(INPUT in network.get_submodule(path)._modules for path in setting.layers):
            words = "cannot be combined with `activations` of `quantise`: they are rounded already"
            raise SpecError([Problem("/name", words)], "Set `activations` to null.")
        norms = norms_after(network, setting.example)
        outputs = rounded_outputs(network, norms, setting.example)
        first = network.get_submodule(setting.layers[0])
        whole = self.settings.image == "float" and isinstance(first, nn.Conv2d) and first.in_channels <= MOST_CHANNELS
        inputs = list(setting.layers[1:] if whole else setting.layers)
        return {"layers": list(setting.layers), "inputs": inputs, "norms": norms, "outputs": outputs}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        modules: dict[str, Any] = {path: network.get_submodule(path) for path in recipe["layers"]}
        if recipe.get("final"):
            for module in modules.values():
                quantiser = Integer(module)
                note(module, quantiser.stored(), **quantiser.tables(module.weight))
        elif self.settings.aware:
            for module in modules.values():
                parametrise(module, Integer(module))
        else:
            return
        _attach(network, recipe)

    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        if not self.settings.aware or progress < self.settings.begin:
            return
        waiting = [part for _, _, part in parts(network, Integer) if not bool(part.active)]
        if waiting:
            for part in waiting:
                part.active.fill_(True)
            measure_ranges(network, setting.images(self.settings.images))

    def settled(self, progress: float) -> bool:
        return not self.settings.aware or progress >= self.settings.begin

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        images = setting.images(self.settings.images)
        if self.settings.aware and all(bool(part.active) for _, _, part in parts(network, Integer)):
            self._bake(network, {})
            measure_ranges(network, images)
            return {**recipe, "final": True}
        statistics = moments_of(network, images)
        plain = [path for path in recipe["layers"] if stored_of(network.get_submodule(path)) is None]
        inputs = second_moments(network, plain, images)
        if not self.settings.aware:
            for path in recipe["layers"]:
                module: Any = network.get_submodule(path)
                parametrise(module, Integer(module))
            _attach(network, recipe)
        self._bake(network, inputs)
        measure_ranges(network, images)
        correct(network, statistics, moments_of(network, images))
        return {**recipe, "final": True}

    def _bake(self, network: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        """Round the weights: with compensation where the moments of a layer's inputs are known, else to the nearest."""
        for path, module, part in parts(network, Integer):
            weight = before(module, part)
            tables = part.tables(weight)
            if path in inputs:
                rounded = compensated(weight, tables["scale"], part.largest, inputs[path])
            else:
                rounded = part.quantised(weight)
            note(module, part.stored(), **tables)
            bake(module, part, rounded)

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The bits of weights and activations, and how many activations are rounded."""
        bits = dict.fromkeys(recipe["layers"], BITS)
        return {"bits": bits, "activation_bits": BITS, "rounded_activations": sum(1 for _ in roundings(network))}


def _attach(network: nn.Module, recipe: Recipe) -> None:
    """Round activations, and note for the ONNX file which layers it has in integers, and into which of them each BatchNorm is folded."""
    inputs = recipe["inputs"] if "inputs" in recipe else recipe["layers"]
    attach(network, inputs, recipe["outputs"])
    for path in recipe["layers"]:
        setattr(network.get_submodule(path), INTEGER, True)
    for norm, layer in recipe["norms"].items():
        setattr(network.get_submodule(norm), FOLDED, (norm, layer))
