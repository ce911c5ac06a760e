"""Networks described layer by layer, as one writes them from the source code of a network that the catalogue lacks.

`[{"conv": 16, "kernel": 5}, {"activation": "relu"}, {"pool": "max"}, {"flatten": true}, {"linear": null}]` is a network.
`layer_kinds.py` has the kinds of layers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Network, by_name_alone
from worker.distillation.networks.layer_kinds import KINDS, Layer
from worker.distillation.parameters import MOST_LAYERS, Example, Items, LayerItem
from worker.distillation.parameters import parse as parse_parameters

IMAGE = "image"
"""Name of the network's input."""
POINTER = "/options/layers"
LONGEST_NAME = 120
MOST_NUMBERS = 2**28
"""Most numbers in one image's activation after any layer."""
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class LayerList(nn.Module):
    """A network that runs its layers in order: images (B, C, H, W) -> logits (B, K).

    `steps` are the layers' names with the names of what each reads.
    """

    def __init__(self, modules: Mapping[str, nn.Module], steps: Sequence[tuple[str, tuple[str, ...]]]):
        super().__init__()
        self.steps = tuple(steps)
        for name, module in modules.items():
            *parents, last = name.split(".")
            place: nn.Module = self
            for parent in parents:
                if parent not in dict(place.named_children()):
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(last, module)

    def forward(self, x: Tensor) -> Tensor:
        outputs = {IMAGE: x}
        kept = {read for _, sources in self.steps for read in sources}
        for name, sources in self.steps:
            x = self.get_submodule(name)(*(outputs[source] for source in sources))
            if name in kept:
                outputs[name] = x
        return x


def parse(layers: Any, pointer: str = POINTER) -> tuple[Layer, ...]:
    """The layers of a list of JSON objects.

    Raises:
        SpecError: an item is not a layer, or has a wrong parameter; it lists all problems.
    """
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not 0 < len(layers) <= MOST_LAYERS:
        raise SpecError([Problem(pointer, f"must be a list of 1 to {MOST_LAYERS} layers")])
    parsed: list[Layer] = []
    problems: list[Problem] = []
    for index, item in enumerate(layers):
        try:
            parsed.append(_layer(item, f"{pointer}/{index}"))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return tuple(parsed)


def _layer(item: Any, pointer: str) -> Layer:
    kinds = [kind for kind in KINDS if isinstance(item, Mapping) and kind in item]
    if len(kinds) != 1:
        raise SpecError([Problem(pointer, f"must be an object with exactly one of the keys {', '.join(KINDS)}")])
    layer = parse_parameters(KINDS[kinds[0]], item, pointer)
    for field in ("name", "input", "add", "concat"):
        value = getattr(layer, field, None)
        if value is not None and not (len(value) <= LONGEST_NAME and _NAME.fullmatch(value)):
            words = "must be words of letters, digits and _, joined by dots, of at most"
            raise SpecError([Problem(f"{pointer}/{field}", f"{words} {LONGEST_NAME} characters")])
    return layer


def to_json(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """The JSON objects that `parse` reads, without values that are defaults."""
    return [
        {field.name: value for field in fields(layer) if (value := getattr(layer, field.name)) != field.default}
        for layer in layers
    ]


def named(layers: Sequence[Layer], pointer: str = POINTER) -> list[str]:
    """The name of each layer: its own, or its kind with a number.

    Raises:
        SpecError: a name is another's, or is inside another's.
    """
    counts: Counter[str] = Counter()
    own = {layer.name for layer in layers if layer.name}
    names: list[str] = []
    problems = []
    for index, layer in enumerate(layers):
        name = layer.name
        while name is None or (layer.name is None and name in own):
            counts[layer.kind] += 1
            name = f"{layer.kind}{counts[layer.kind]}"
        if name in names or name == IMAGE:
            problems.append(Problem(f"{pointer}/{index}/name", f"{name!r} is taken; choose another name"))
        names.append(name)
    taken = set(names)
    for index, name in enumerate(names):
        parts = name.split(".")
        inside = next((parent for at in range(1, len(parts)) if (parent := ".".join(parts[:at])) in taken), None)
        if inside is not None:
            problems.append(Problem(f"{pointer}/{index}/name", f"{name!r} is inside of the layer {inside!r}"))
        reserved = next((part for part in parts if hasattr(LayerList, part) or part in RESERVED), None)
        if reserved is not None:
            problems.append(
                Problem(f"{pointer}/{index}/name", f"{reserved!r} is a word of PyTorch; choose another name")
            )
    if problems:
        raise SpecError(problems)
    return names


RESERVED = frozenset(vars(nn.Module())) | {"steps"}
"""Attributes that modules have, and that are no class attributes."""


def build(layers: Sequence[Layer], classes: int, contract: InputContract, pointer: str = POINTER) -> LayerList:
    """The network with random weights; channels and sizes follow from the contract.

    Raises:
        SpecError: a layer does not fit what it reads, or the last one does not answer with `classes` numbers.
    """
    names = named(layers, pointer)
    shapes: dict[str, tuple[int, ...]] = {IMAGE: (contract.channels, contract.height, contract.width)}
    modules: dict[str, nn.Module] = {}
    steps: list[tuple[str, tuple[str, ...]]] = []
    before = IMAGE
    for index, (name, layer) in enumerate(zip(names, layers, strict=True)):
        place = f"{pointer}/{index}"
        sources = (layer.input or before, *([layer.other] if layer.other else []))
        unknown = [source for source in sources if source not in shapes]
        if unknown:
            raise SpecError([Problem(place, f"there is no earlier layer {unknown[0]!r}")])
        shapes[name] = shape_after(layer, [shapes[source] for source in sources], classes, place)
        modules[name] = layer.module(shapes[sources[0]], classes)
        steps.append((name, sources))
        before = name
    if shapes[before] != (classes,):
        words = f"the last layer answers an image with the shape {shapes[before]}, not ({classes},)"
        raise SpecError([Problem(f"{pointer}/{len(layers) - 1}", f'{words}; end with {{"linear": null}}')])
    return LayerList(modules, steps)


def shape_after(layer: Layer, shapes: Sequence[tuple[int, ...]], classes: int, pointer: str) -> tuple[int, ...]:
    """The shape of a layer's output for inputs of these shapes, each without the batch, from a run without numbers.

    Raises:
        SpecError: the layer does not fit its inputs; `pointer` is its place.
    """
    first = shapes[0]
    if len(first) not in layer.dimensions:
        words = "a feature map (C, H, W)" if layer.dimensions == (3,) else 'a vector: put {"flatten": true} before it'
        raise SpecError([Problem(pointer, f"reads {words}, not the shape {first}")])
    try:
        with torch.device("meta"), torch.no_grad():
            module = layer.module(first, classes)
            output = module(*(torch.empty(2, *shape) for shape in shapes))
    except (ValueError, RuntimeError, IndexError) as error:
        message = str(error).splitlines()[0][:300]
        raise SpecError([Problem(pointer, f"does not fit its input of shape {first}: {message}")]) from None
    shape = tuple(output.shape[1:])
    if output[0].numel() > MOST_NUMBERS:
        raise SpecError([Problem(pointer, f"its output of shape {shape} is too large")])
    return shape


@dataclass(frozen=True)
class Options:
    """The layers of a network."""

    layers: Annotated[
        tuple[LayerItem, ...],
        Items(least=1, most=MOST_LAYERS),
        "The layers in order. Each is an object with one key that is its kind, such as conv or linear, and its"
        " parameters; the catalogue lists them under `layers`.",
        Example(
            [{"conv": 16, "kernel": 5}, {"activation": "relu"}, {"pool": "global"}, {"flatten": True}, {"linear": None}]
        ),
    ] = (
        LayerItem(conv=16),
        LayerItem(norm="batch"),
        LayerItem(activation="relu"),
        LayerItem(pool="global"),
        LayerItem(flatten=True),
        LayerItem(linear=None),
    )


def build_own(classes: int, contract: InputContract, options: Options) -> LayerList:
    return build(parse(options.layers), classes, contract)


NETWORKS = {
    "layers": Network(
        'Any network described layer by layer; written as `{"network": {"layers": [...]}}`. By default one convolution.',
        build_own,
        "",
        Options,
        guess=by_name_alone,
    )
}
