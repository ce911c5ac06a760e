"""The layers of a state dict, in the order in which they can follow each other.

Nothing but names and shapes is used: a weight of 4 dimensions is a convolution, of 2 a linear layer, of 1 with running
statistics a BatchNorm, without them a GroupNorm of one group.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from worker.distillation.errors import UploadError

PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
MOST_LAYERS = 64
MOST_TRIED = 20_000
HINT = (
    "Say which network it is: set `network`, or describe it as a list of layers, which may add and join branches. Or pack it "
    "on your machine: `distillery pack`."
)


@dataclass(frozen=True)
class Layer:
    """A layer with weights. `name` is what its tensors' names begin with."""

    kind: Literal["conv", "batch_norm", "group_norm", "linear"]
    name: str
    tensors: Mapping[str, Tensor]
    groups: int = 1

    @property
    def weight(self) -> Tensor:
        return self.tensors["weight"]

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        """Input channels or features."""
        return self.weight.shape[1] * self.groups if self.weight.ndim > 1 else self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weight.shape[2]), int(self.weight.shape[3])


def read_chain(state: Mapping[str, Tensor], channels: int) -> tuple[Layer, ...]:
    """The layers of a state dict as a chain that reads images of so many channels.

    The file's own order counts if the layers can follow each other so; else an order is searched in which they can.

    Raises:
        UploadError: a tensor belongs to no such layer, or the layers are no chain.
    """
    layers = _layers(state)
    for given in (layers, _transposed(layers)):
        for order in (given, None):
            found = _in_order(order, channels) if order is not None else _searched(given, channels)
            if found is not None:
                return found
    shapes = ", ".join(f"{layer.name[:60]} {tuple(layer.weight.shape)}" for layer in layers[:12])
    raise UploadError(
        f"the layers of the file cannot follow each other in a chain from {channels} channels: {shapes}", HINT
    )


def _layers(state: Mapping[str, Tensor]) -> list[Layer]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        prefix, _, part = name.rpartition(".")
        if part not in PARTS:
            raise UploadError(f"the tensor {name[:100]} belongs to no convolution, norm or linear layer", HINT)
        grouped.setdefault(prefix, {})[part] = tensor.float() if tensor.is_floating_point() else tensor
    layers = [_layer(name, parts) for name, parts in grouped.items()]
    if not 1 <= len(layers) <= MOST_LAYERS:
        raise UploadError(f"the file has {len(layers)} layers; 1 to {MOST_LAYERS} can be recognised", HINT)
    return layers


def _layer(name: str, parts: dict[str, Tensor]) -> Layer:
    weight = parts.get("weight")
    if weight is None and "running_mean" in parts:
        parts["weight"] = weight = torch.ones_like(parts["running_mean"])
    kinds: dict[int, Literal["conv", "linear", "batch_norm", "group_norm"]] = {4: "conv", 2: "linear"}
    if weight is not None and weight.ndim == 1:
        kinds[1] = "batch_norm" if "running_mean" in parts else "group_norm"
    if weight is None or weight.ndim not in kinds or weight.numel() == 0:
        shape = None if weight is None else tuple(weight.shape)
        raise UploadError(
            f"{name[:100]} with a weight of shape {shape} is not a convolution, norm or linear layer", HINT
        )
    return Layer(kinds[weight.ndim], name, parts)


def _transposed(layers: Sequence[Layer]) -> list[Layer]:
    """The same with the weights of all linear layers as (inputs, outputs), as some frameworks store them."""
    return [
        Layer("linear", each.name, {**each.tensors, "weight": each.weight.t().contiguous()})
        if each.kind == "linear"
        else each
        for each in layers
    ]


def follow(layer: Layer, before: Layer | None, channels: int) -> Layer | None:
    """The layer as it follows what gave so many channels or features (`before`: the last convolution or linear layer); None
    if it cannot."""
    flat = before is not None and before.kind == "linear"
    if layer.kind in ("batch_norm", "group_norm"):
        return layer if layer.outputs == channels else None
    if layer.kind == "linear":
        fits = layer.inputs == channels if flat else layer.inputs % channels == 0
        return layer if fits else None
    if flat:  # a linear layer written as a convolution
        flattened = layer.weight.flatten(1)
        fits = flattened.shape[1] == channels
        return Layer("linear", layer.name, {**layer.tensors, "weight": flattened}) if fits else None
    if layer.kernel[0] != layer.kernel[1]:
        return None
    groups, rest = divmod(channels, layer.weight.shape[1])
    if rest or layer.outputs % groups:
        return None
    return Layer("conv", layer.name, layer.tensors, groups)


def _in_order(layers: Sequence[Layer], channels: int) -> tuple[Layer, ...] | None:
    found: list[Layer] = []
    before: Layer | None = None
    for layer in layers:
        placed = follow(layer, before, channels)
        if placed is None:
            return None
        found.append(placed)
        channels = placed.outputs
        before = placed if placed.kind in ("conv", "linear") else before
    return tuple(found) if found[-1].kind in ("conv", "linear") else None


def _searched(layers: Sequence[Layer], channels: int) -> tuple[Layer, ...] | None:
    """The first chain of all layers, of those without groups, found depth first."""
    budget = [MOST_TRIED]

    def extended(chain: tuple[Layer, ...], rest: tuple[Layer, ...], reads: int) -> tuple[Layer, ...] | None:
        if not rest:
            return chain if chain[-1].kind in ("conv", "linear") else None
        for index, layer, placed in _next(chain, rest, reads):
            budget[0] -= 1
            if budget[0] < 0:
                return None
            found = extended((*chain, placed), rest[:index] + rest[index + 1 :], layer.outputs)
            if found is not None:
                return found
        return None

    return extended((), tuple(layers), channels)


def _next(chain: Sequence[Layer], rest: Sequence[Layer], channels: int) -> Iterator[tuple[int, Layer, Layer]]:
    before = next((each for each in reversed(chain) if each.kind in ("conv", "linear")), None)
    for index, layer in enumerate(rest):
        placed = follow(layer, before, channels)
        if placed is not None and placed.groups == 1:
            yield index, layer, placed
