"""A reading of a chain as a list of layers of `networks/layer_list.py`, and the state dict of that network.

What a list of layers does not say is made part of the weights: black and white exchanged, channels reversed, and maps
flattened with the channels last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.networks import layer_kinds as kinds
from worker.distillation.networks.layer_list import build, named
from worker.distillation.recovery.chain import COUNTER, WEIGHTED, Layer
from worker.distillation.recovery.reading import Reading, ends_maps, norms_after

ADDED = "added_later_"
"""What the name of a layer begins with whose output is added to that of a later one."""
Row = tuple[kinds.Layer, Layer | None]
"""A layer of the list, and the layer of the chain whose weights it has."""


def as_layer_list(
    reading: Reading, chain: Sequence[Layer], channels: int
) -> tuple[list[kinds.Layer], dict[str, Tensor], InputContract]:
    """The layers, the state dict of the network that `networks/layer_list.py` builds of them, and what it reads."""
    contract = _contract(reading, channels)
    for keeps_names in (True, False):
        rows = _rows(reading, chain, keeps_names)
        layers = [layer for layer, _ in rows]
        try:
            build(layers, chain_outputs(chain), contract)
        except SpecError:
            if not keeps_names:
                raise
            continue
        break
    state: dict[str, Tensor] = {}
    first, flattened = _first(chain), _first_linear(chain)
    maps = next((each.outputs for each in reversed(chain) if each.kind == "conv"), 1)
    for name, (_, source) in zip(named(layers), rows, strict=True):
        if source is not None:
            state |= {
                f"{name}.{part}": tensor
                for part, tensor in _tensors(reading, source, first, flattened, channels, maps).items()
            }
    return layers, state, contract


def chain_outputs(chain: Sequence[Layer]) -> int:
    """How many numbers a chain answers with."""
    return next(layer for layer in reversed(chain) if layer.kind in WEIGHTED).outputs


def can_fold(chain: Sequence[Layer]) -> bool:
    """Whether changes of the images can be made part of the first layer's weights."""
    return chain[0].kind in WEIGHTED


def _contract(reading: Reading, channels: int) -> InputContract:
    way = reading.normalisation
    mean = way.mean[::-1] if way.reversed else way.mean
    std = way.std[::-1] if way.reversed else way.std
    if way.inverted:  # (1 - p - mean) / std = -(p - (1 - mean)) / std
        mean = tuple(1 - value for value in mean)
    return InputContract(channels, *reading.geometry.size, mean, std)


def _rows(reading: Reading, chain: Sequence[Layer], keeps_names: bool) -> list[Row]:
    """The rows; one whose output is added later has a name."""
    rows: list[Row] = []
    convolutions, flat = 0, False
    for index, layer in enumerate(chain):
        name = layer.name if keeps_names and layer.name else None
        bias = "bias" in layer.tensors
        if layer.kind == "conv":
            if convolutions in reading.geometry.skips:
                rows[-1] = _to_be_added(rows[-1], convolutions)
            rows += _convolution(reading, chain, index, convolutions, name)
            convolutions += 1
            if ends_maps(chain, index):
                rows += _ending(reading)
                flat = True
        elif layer.kind == "linear":
            if not flat:
                rows.append((kinds.Flatten(flatten=True), None))
                flat = True
            rows.append((kinds.Linear(linear=layer.outputs, bias=bias, name=name), layer))
            rows += _between(reading, chain, index, keeps_names)
        elif index == 0:
            rows.append((_norm(reading, layer, True, keeps_names), layer))
    return rows


def _convolution(reading: Reading, chain: Sequence[Layer], index: int, number: int, name: str | None) -> Iterator[Row]:
    """A convolution with what follows it up to the next layer with weights."""
    layer, placed, skips = chain[index], reading.geometry.placements[number], reading.geometry.skips
    yield (
        kinds.Conv(
            conv=layer.outputs,
            kernel=layer.kernel[0],
            stride=placed.stride,
            padding=placed.padding,
            groups=layer.groups,
            bias="bias" in layer.tensors,
            name=name,
        ),
        layer,
    )
    between = list(_between(reading, chain, index, name is not None))
    if number - 1 in skips:
        at = len(between) - (not reading.sum_last and bool(between) and isinstance(between[-1][0], kinds.Activation))
        between.insert(at, (kinds.Addition(add=f"{ADDED}{number - 1}"), None))
    yield from between
    if placed.pool is not None:
        pool: Literal["max", "average"] = "max" if reading.pooling_behind(number) == "max" else "average"
        kernel, step, *padding = placed.pool
        stride = step if step != kernel else None
        yield kinds.Pool(pool=pool, kernel=kernel, stride=stride, padding=sum(padding)), None


def _to_be_added(row: Row, number: int) -> Row:
    return replace(row[0], name=f"{ADDED}{number}"), row[1]


def _between(reading: Reading, chain: Sequence[Layer], index: int, keeps_names: bool) -> Iterator[Row]:
    maps = chain[index].kind == "conv"
    norms = [(_norm(reading, each, maps, keeps_names), each) for each in norms_after(chain, index)]
    behind = reading.activation_behind(chain, index)
    acts: list[Row] = [(_activation(behind), None)] if behind != "none" else []
    yield from [*acts, *norms] if reading.norm_last else [*norms, *acts]


def _activation(name: str) -> kinds.Activation:
    """Of a name in `ACTIVATIONS`; `leaky_relu_0.2` has the slope 0.2."""
    kind, _, slope = name.partition("_0.")
    given = {"slope": float(f"0.{slope}")} if slope else {}
    return kinds.Activation(activation=kind, **given)  # type: ignore[arg-type]


def _norm(reading: Reading, layer: Layer, maps: bool, keeps_names: bool) -> kinds.Layer:
    name = layer.name if keeps_names and layer.name else None
    if layer.kind == "prelu":
        return kinds.Activation(activation="prelu", name=name)
    if layer.kind == "batch_norm":
        return kinds.Norm(norm="batch", name=name)
    return kinds.Norm(norm="group", groups=reading.groups_of(layer, maps), name=name)


def _ending(reading: Reading) -> Iterator[Row]:
    if reading.geometry.ending != "flatten":
        largest = reading.geometry.ending == "max"
        if reading.geometry.pooled == 1:
            yield kinds.Pool(pool="global_max" if largest else "global"), None
        else:
            yield kinds.Pool(pool="adaptive_max" if largest else "adaptive", size=reading.geometry.pooled), None
    yield kinds.Flatten(flatten=True), None


def _first(chain: Sequence[Layer]) -> Layer:
    return next(layer for layer in chain if layer.kind in WEIGHTED)


def _first_linear(chain: Sequence[Layer]) -> Layer | None:
    """The linear layer that reads flattened maps."""
    linear = next((layer for layer in chain if layer.kind == "linear"), None)
    return linear if any(layer.kind == "conv" for layer in chain) else None


def _tensors(
    reading: Reading, layer: Layer, first: Layer, flattened: Layer | None, channels: int, maps: int
) -> dict[str, Tensor]:
    tensors = dict(layer.tensors)
    if layer.kind == "batch_norm":
        tensors.setdefault("bias", torch.zeros_like(layer.weight))
        tensors.setdefault(COUNTER, torch.tensor(0))
    if layer is first:
        tensors["weight"] = _of_plain_images(reading, layer.weight, channels)
    elif layer.kind == "group_norm":
        tensors.setdefault("bias", torch.zeros_like(layer.weight))
    if layer is flattened and reading.channels_last:
        tensors["weight"] = _channels_first(tensors["weight"], maps)
    return {part: tensor.contiguous() for part, tensor in tensors.items()}


def _of_plain_images(reading: Reading, weight: Tensor, channels: int) -> Tensor:
    if reading.normalisation.reversed:
        maps = weight if weight.ndim == 4 else weight.view(len(weight), channels, -1)
        weight = maps.flip(1).reshape(weight.shape)
    return -weight if reading.normalisation.inverted else weight


def _channels_first(weight: Tensor, maps: int) -> Tensor:
    """Columns for maps flattened with the channels first, of those with the channels last."""
    return weight.view(len(weight), -1, maps).transpose(1, 2).reshape(weight.shape)
