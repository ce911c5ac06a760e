"""A library's network whose classifier was replaced by several layers, as code that fine-tunes published networks does."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks import layer_list
from worker.distillation.networks.layer_kinds import CONCAT, Layer, Pool
from worker.distillation.parameters import Example, Items, LayerItem

KINDS = ("linear", "norm", "activation", "dropout")
"""Kinds of layers that a head may have."""
MOST_LAYERS = 32
HEAD, PLACE = "/options/head", "/options/head_at"


@dataclass(frozen=True)
class HeadOptions:
    """Layers in place of a network's classifier."""

    head: Annotated[
        tuple[LayerItem, ...],
        Items(most=MOST_LAYERS),
        "Layers in place of the classifier, written as those of `layers`; their kinds are linear, norm, activation and dropout."
        ' The first may be `{"pool": "concat"}`, which replaces the network\'s global average pooling, as fastai does.'
        " If empty, the classifier is the published one.",
        Example([{"linear": 256}, {"activation": "relu"}, {"dropout": 0.4}, {"linear": None}]),
    ] = ()
    head_at: Annotated[
        str,
        "Path of the module that `head` replaces, such as `classifier`. If empty, it is the last linear layer.",
    ] = ""


PUBLISHED = HeadOptions()
"""No other layers."""


def with_head(network: nn.Module, options: HeadOptions, classes: int) -> nn.Module:
    """The network with the head that the options describe, a `nn.Sequential` with random weights; itself if they describe none.

    Raises:
        SpecError: the module does not contain the last linear layer, or the layers do not fit.
    """
    if not options.head:
        if options.head_at:
            raise SpecError([Problem(PLACE, "needs `head`, the layers in place of this module")])
        return network
    last = last_linear(network)
    path = options.head_at or last
    if not last or not is_below(last, path):
        words = (
            f"must contain the last linear layer, {last!r}" if last else "the network has no linear layer to replace"
        )
        raise SpecError([Problem(PLACE, words)])
    layers = layer_list.parse(options.head, HEAD)
    features, first = features_before(network, path), layers[0]
    pools = isinstance(first, Pool) and first.pool == CONCAT
    modules = _head(layers, 2 * features if pools else features, classes, start=int(pools))
    if pools:
        network.set_submodule(_pooling(network), first.module((features, 1, 1), classes))
    flat = [] if path == last else [nn.Flatten()]  # parts of a classifier may read maps of one pixel
    network.set_submodule(path, nn.Sequential(*flat, *modules))
    return network


def last_linear(network: nn.Module) -> str:
    """The path of the last linear layer; empty if there is none."""
    paths = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    return paths[-1] if paths else ""


def features_before(network: nn.Module, path: str) -> int:
    """How many features the first linear layer at or below a path reads."""
    return next(
        module.in_features
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and is_below(name, path)
    )


def is_below(name: str, path: str) -> bool:
    """Whether a module or tensor is at a path or below it."""
    return name == path or name.startswith(f"{path}.")


def _pooling(network: nn.Module) -> str:
    """The name of the network's global average pooling.

    Raises:
        SpecError: it has none among its own modules.
    """
    children = network.named_children()
    averages = {name: each.output_size for name, each in children if isinstance(each, nn.AdaptiveAvgPool2d)}
    found = [name for name, size in averages.items() if size in (1, (1, 1))]
    if len(found) != 1:
        words = "needs a network whose global average pooling is a module of its own, such as torchvision/resnet18"
        raise SpecError([Problem(f"{HEAD}/0", words)])
    return found[0]


def _head(layers: tuple[Layer, ...], features: int, classes: int, start: int = 0) -> list[nn.Module]:
    """The modules of the layers from number `start` on."""
    modules: list[nn.Module] = []
    shape: tuple[int, ...] = (features,)
    for index, layer in enumerate(layers[start:], start=start):
        pointer = f"{HEAD}/{index}"
        if layer.kind not in KINDS or layer.input or layer.name:
            words = f"must be one of {', '.join(KINDS)}, without `name` and `input`"
            raise SpecError([Problem(pointer, words)])
        module = layer.module(shape, classes)
        shape = layer_list.shape_after(layer, [shape], classes, pointer)
        modules.append(module)
    if shape != (classes,):
        words = f'the last layer answers with {shape[0]} numbers, not {classes}; end with {{"linear": null}}'
        raise SpecError([Problem(f"{HEAD}/{len(layers) - 1}", words)])
    return modules
