"""Narrower networks: the same structure with fewer channels, as another network or other options of the catalogue."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.introspection.channel_following import follow
from worker.distillation.introspection.channel_freedom import Freedom, length
from worker.distillation.networks import layer_list
from worker.distillation.networks.layer_kinds import Conv, Layer, Linear
from worker.distillation.parameters import Example, Range

LAYERS = "layers"


@dataclass(frozen=True)
class Likeness:
    """A student with the structure of its teacher and fewer channels."""

    like: Annotated[
        Literal["teacher"] | None,
        "Instead of `network`: `teacher` for a network with the teacher's structure and fewer channels. Channels that are added"
        " to each other stay as many as each other; the classes stay.",
        Example("teacher"),
    ] = None
    width: Annotated[
        float,
        Range(gt=0, le=1),
        "For a student `like` its teacher: fraction of the teacher's channels in each layer, rounded, at least one.",
        Example(0.5),
    ] = 0.5


def narrowed(
    name: str, options: Mapping[str, Any], width: float, classes: int, contract: InputContract
) -> tuple[str, dict[str, Any]] | None:
    """A network of the same structure with `width` times the channels: its name and options.

    None if the catalogue has no such network: the options hold no widths, or none that becomes smaller.
    """
    if name == LAYERS:
        return _narrower_layers(options, width, classes, contract)
    network = networks.named().get(name)
    if network is None:
        return None
    family, of_family = network.as_family
    name, network = (family, networks.named()[family]) if family else (name, network)
    defaults = {each.name: each.default for each in fields(network.options_type)}
    before = defaults | dict(of_family) | dict(options)
    after = {each: _scaled(before[each], width) for each in network.widths if before[each] is not None}
    changed = any(_listed(after[each]) != _listed(before[each]) for each in after)
    return (name, before | after) if after and (changed or width == 1) else None


def _scaled(value: Any, width: float) -> Any:
    if isinstance(value, (list, tuple)):
        return [_scaled(each, width) for each in value]
    return max(1, math.floor(value * width + 0.5))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _narrower_layers(
    options: Mapping[str, Any], width: float, classes: int, contract: InputContract
) -> tuple[str, dict[str, Any]] | None:
    layers = layer_list.parse(options[LAYERS])
    with torch.device("meta"):
        watch = follow(layer_list.build(layers, classes, contract), contract.blank(torch.device("meta")), Freedom)
    sizes = watch.narrower(width)
    lengths = {
        name: length(axes[0], sizes) for name, axes in watch.axes.items() if name.endswith(".weight") and axes[0]
    }
    fewer = [
        _with(layer, lengths.get(f"{name}.weight"))
        for name, layer in zip(layer_list.named(layers), layers, strict=True)
    ]
    return (LAYERS, {LAYERS: layer_list.to_json(fewer)}) if fewer != list(layers) or width == 1 else None


def _with(layer: Layer, channels: int | None) -> Layer:
    """The layer with so many channels in its output; a depthwise convolution keeps one group for each channel."""
    if isinstance(layer, Conv) and channels is not None:
        groups = channels if layer.groups == layer.conv and layer.groups > 1 else layer.groups
        return replace(layer, conv=channels, groups=groups)
    if isinstance(layer, Linear) and layer.linear is not None and channels is not None:
        return replace(layer, linear=channels)
    return layer
