"""The layers of a state dict, in the order in which they can follow each other.

Nothing but names and shapes is used: a weight of 4 dimensions is a convolution, of 2 a linear layer, of 1 with running
statistics a BatchNorm, without them a GroupNorm or a LayerNorm, and a single number a PReLU.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.wording import natural

COUNTER = "num_batches_tracked"
PARTS = ("weight", "bias", "running_mean", "running_var", COUNTER)
WEIGHTED = ("conv", "linear")
MOST_LAYERS = 64
MOST_TRIED = 20_000
HINT = (
    "Say which network it is: set `network`, or describe it as a list of layers, which may add and join branches. Or pack it "
    "on your machine: `distillery pack`."
)

Kind = Literal["conv", "linear", "batch_norm", "group_norm", "prelu"]


@dataclass(frozen=True)
class Layer:
    """A layer with weights. `name` is what its tensors' names begin with."""

    kind: Kind
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

    The file's own order counts if the layers can follow each other so, unless it lists norms apart from their layers; else an
    order is searched in which they can, with norms behind the layers of their numbers (`conv2`, `bn2`) if possible. A linear layer
    without which alone they can is left out.

    Raises:
        UploadError: a tensor belongs to no such layer, or the layers are no chain.
    """
    layers = _layers(state)
    for given in (layers, _transposed(layers), *_without_one(layers)):
        found = next((order for order in _orders(given, channels) if order is not None), None)
        if found is not None:
            return found
    shapes = ", ".join(f"{layer.name[:60]} {tuple(layer.weight.shape)}" for layer in layers[:12])
    raise UploadError(
        f"the layers of the file cannot follow each other in a chain from {channels} channels: {shapes}", HINT
    )


def _orders(layers: Sequence[Layer], channels: int) -> Iterator[tuple[Layer, ...] | None]:
    """Ways to find an order, the likeliest first."""
    yield None if _listed_apart(layers) else _in_order(layers, channels)
    yield _searched(layers, channels, _owners(layers))
    yield _in_order(layers, channels)
    yield _searched(layers, channels)


def _without_one(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """The layers without one linear layer, which code may make and never call, the last first."""
    for unused in reversed(layers):
        if unused.kind == "linear" and len(layers) > 1:
            yield [layer for layer in layers if layer is not unused]


def _layers(state: Mapping[str, Tensor]) -> list[Layer]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(state.items(), key=lambda pair: pair[0].endswith(COUNTER)):
        prefix, _, part = name.rpartition(".")
        if part not in PARTS:
            raise UploadError(f"the tensor {name[:100]} belongs to no convolution, norm or linear layer", HINT)
        grouped.setdefault(prefix, {})[part] = tensor.float() if tensor.is_floating_point() else tensor
    layers = [_layer(name, parts) for name, parts in grouped.items()]
    layers = _in_natural_order([layer for layer in layers if not _is_unused(layer)])
    if not 1 <= len(layers) <= MOST_LAYERS:
        raise UploadError(f"the file has {len(layers)} layers; 1 to {MOST_LAYERS} can be recognised", HINT)
    return layers


def _layer(name: str, parts: dict[str, Tensor]) -> Layer:
    weight = parts.get("weight")
    if weight is None and "running_mean" in parts:
        parts["weight"] = weight = torch.ones_like(parts["running_mean"])
    kinds: dict[int, Kind] = {4: "conv", 2: "linear"}
    if weight is not None and weight.ndim == 1:
        alone = weight.numel() == 1 and len(parts) == 1
        kinds[1] = "batch_norm" if "running_mean" in parts else "prelu" if alone else "group_norm"
    if weight is None or weight.ndim not in kinds or weight.numel() == 0:
        shape = None if weight is None else tuple(weight.shape)
        raise UploadError(
            f"{name[:100]} with a weight of shape {shape} is not a convolution, norm or linear layer", HINT
        )
    return Layer(kinds[weight.ndim], name, parts)


def _in_natural_order(layers: list[Layer]) -> list[Layer]:
    """Layers whose names are sorted as text, as safetensors does it, sorted by the numbers in them: `10` behind `2`."""
    if [layer.name for layer in layers] != sorted(layer.name for layer in layers):
        return layers
    return sorted(layers, key=lambda layer: natural(layer.name))


def _is_unused(layer: Layer) -> bool:
    """Whether a BatchNorm has counted no batch and changes nothing: code that makes one and never calls it is common."""
    counter, tensors = layer.tensors.get(COUNTER), layer.tensors
    if layer.kind != "batch_norm" or counter is None or bool(counter.any()):
        return False
    begun = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    return all(bool((tensors[part] == value).all()) for part, value in begun.items() if part in tensors)


def _listed_apart(layers: Sequence[Layer]) -> bool:
    """Whether norms or activations follow each other, as where code makes all convolutions first and then all norms."""
    return any(one.kind not in WEIGHTED and other.kind == one.kind for one, other in pairwise(layers))


def _owners(layers: Sequence[Layer]) -> dict[str, str]:
    """The layers with weights that norms and activations belong to, by the numbers in their names: `bn2` and `conv2_bn` to `conv2`.

    Of several with the same numbers, the one whose name is the beginning or end of the other's, or else the first that has as many outputs.
    """
    owners: dict[str, str] = {}
    for layer in layers:
        fitting = [
            other
            for other in layers
            if other.kind in WEIGHTED
            and _numbers(other.name) == _numbers(layer.name)
            and (layer.kind == "prelu" or other.outputs == layer.outputs)
        ]
        if layer.kind not in WEIGHTED and _numbers(layer.name) and fitting:
            named = [other for other in fitting if other.name in layer.name]
            free = [other for other in fitting if other.name not in owners.values()]
            owners[layer.name] = (named or free or fitting)[0].name
    return owners


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


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
    if layer.kind == "prelu":
        return layer if before is not None else None
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
        channels = channels if placed.kind == "prelu" else placed.outputs
        before = placed if placed.kind in WEIGHTED else before
    return tuple(found) if found[-1].kind in WEIGHTED else None


def _searched(
    layers: Sequence[Layer], channels: int, owners: Mapping[str, str] | None = None
) -> tuple[Layer, ...] | None:
    """The first chain of all layers, of those without groups, found depth first.

    With `owners`, norms and activations follow their owners, those without one follow layers that own none, and no norm follows another.
    """
    budget = [MOST_TRIED]

    def extended(chain: tuple[Layer, ...], rest: tuple[Layer, ...], reads: int) -> tuple[Layer, ...] | None:
        if not rest:
            return chain if chain[-1].kind in WEIGHTED else None
        for index, layer, placed in _next(chain, rest, reads):
            budget[0] -= 1
            if budget[0] < 0:
                return None
            if owners is not None and not _is_in_place(layer, chain, rest, owners):
                continue
            after = reads if layer.kind == "prelu" else layer.outputs
            found = extended((*chain, placed), rest[:index] + rest[index + 1 :], after)
            if found is not None:
                return found
        return None

    return extended((), tuple(layers), channels)


def _is_in_place(layer: Layer, chain: Sequence[Layer], rest: Sequence[Layer], owners: Mapping[str, str]) -> bool:
    """Whether a layer of the rest may follow a chain, if norms and activations follow their owners."""
    before = next((each for each in reversed(chain) if each.kind in WEIGHTED), None)
    if layer.kind in WEIGHTED:
        return before is None or not any(owners.get(each.name) == before.name for each in rest)
    if chain and chain[-1].kind == layer.kind:
        return False
    if layer.name in owners:
        return before is not None and owners[layer.name] == before.name
    return before is None or before.name not in owners.values()


def _next(chain: Sequence[Layer], rest: Sequence[Layer], channels: int) -> Iterator[tuple[int, Layer, Layer]]:
    before = next((each for each in reversed(chain) if each.kind in WEIGHTED), None)
    for index, layer in enumerate(rest):
        placed = follow(layer, before, channels)
        if placed is not None and placed.groups == 1:
            yield index, layer, placed
