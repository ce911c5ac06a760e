"""Networks of torchvision and timm with a classifier of several layers, or with numbers for names, as fine-tuning code saves them,
fastai among it.

`Sequential(*list(network.children())[:-1])` has numbers for names. Such names are read for networks with `features`, and for
residual networks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.networks.library_index import with_names
from worker.distillation.networks.replaced_head import features_before, is_below, last_linear
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.network_parts import HEADS, is_for_training, largest_first, main_name
from worker.distillation.uploads.selection import common_prefix
from worker.distillation.wording import natural

PUBLISHED = {
    "classifier": (("",), (".1",), (".2",), (".0", ".3"), (".0", ".3", ".6"), (".1", ".4", ".6")),
    "heads": ((".head",),),
    "head": (("",), (".fc",)),
}
"""Where published classifiers have linear layers, by the path of the module that contains them all."""
BESIDE = (
    "fc",
    "classifier",
    "head",
    "heads",
    "classifier.1",
    "classifier.2",
    "classifier.3",
    "classifier.6",
    "head.fc",
)
"""Paths of classifiers that a head beside the network can stand for."""
NUMBERED = (
    {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"},
    {"0": "features"},
)
"""Names of the modules of a network by their numbers among its modules, for residual networks and for others."""
MOST_CANDIDATES = 3
MOST_NETWORKS = 8
MOST_PATHS = 16
"""Paths of heads that are tried for a candidate."""
MOST_LINEAR = 8
REPRESENTATION = "pre_logits.fc"
"""A linear layer with tanh before the classifier `head`, in ViTs of older versions of timm."""
CONCAT_POOL = {"pool": "concat"}
"""What a head begins with if it reads twice as many features as the classifier that it replaces."""
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Headed:
    """A network of a library with another head, and the file's tensors under that network's names."""

    network: str
    options: dict[str, Any]
    classes: int
    candidate: Candidate


@dataclass(frozen=True)
class _Layer:
    """A linear layer or a norm of a head: its tensors by their last part, and its number in a sequence, if it has one."""

    tensors: Tensors
    number: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors["weight"].shape)

    @property
    def is_linear(self) -> bool:
        return len(self.shape) == 2


@dataclass(frozen=True)
class _Division:
    """The tensors of a network without its head by the library's names, those of the head, the paths that it may have in the
    network, and its path in the file."""

    network: Tensors
    head: Tensors
    places: tuple[str, ...]
    given: str
    numbered: bool = False


def headed(candidates: Sequence[Candidate], contract: InputContract) -> Iterator[Headed]:
    """The networks of libraries that have a candidate's tensors but for the head, or but for numbers in place of names.

    Of several ways to divide the tensors, the one with the smallest head counts for each network.
    """
    for candidate in largest_first(candidates)[:MOST_CANDIDATES]:
        seen: set[str] = set()
        kept = {name: leaf for name, leaf in candidate.tensors.items() if not is_for_training(name)}
        yield from _with_representation(candidate, kept, contract)
        for division in _divisions(kept):
            layers = _layers(division.head)
            linear = sum(layer.is_linear for layer in layers)
            if linear and (linear > 1 or len(layers) > 1 or division.numbered):
                found = [each for each in _of(candidate, division, layers, contract) if each.network not in seen]
                yield from found
                seen |= {each.network for each in found}


def has_representation(candidates: Sequence[Candidate]) -> bool:
    """Whether a candidate has the layer `REPRESENTATION`, which a network that fits may not have."""
    return any(name.endswith(f"{REPRESENTATION}.weight") for each in candidates for name in each.tensors)


def _with_representation(candidate: Candidate, tensors: Tensors, contract: InputContract) -> Iterator[Headed]:
    """The ViTs with the layer `REPRESENTATION`, which timm has no more; its own loading leaves the layer out."""
    prefix = common_prefix(tensors)
    short = {name.removeprefix(prefix): leaf for name, leaf in tensors.items()}
    head = [
        {part: leaf for part in ("weight", "bias") if (leaf := short.get(f"{path}.{part}")) is not None}
        for path in (REPRESENTATION, "head")
    ]
    rest = {
        name: leaf for name, leaf in short.items() if not is_below(name, REPRESENTATION) and not is_below(name, "head")
    }
    if all("weight" in each for each in head):
        layers = [_Layer(each, 2 * number) for number, each in enumerate(head)]
        yield from _of(candidate, _Division(rest, {}, ("head",), f"{prefix}head"), layers, contract, "tanh")


def _divisions(tensors: Tensors) -> Iterator[_Division]:
    """Ways to divide tensors into a network and its head."""
    prefix = common_prefix(tensors)
    short = {name.removeprefix(prefix): leaf for name, leaf in tensors.items()}
    named = {place for name in short if name.partition(".")[0] in HEADS for place in _parents(name)}
    paths = sorted(named, key=lambda path: (path.count("."), path))[:MOST_PATHS]
    for path in sorted(paths, key=lambda path: (-path.count("."), path)):
        rest = {name: leaf for name, leaf in short.items() if not is_below(name, path)}
        yield _Division(rest, {name: short[name] for name in short if name not in rest}, (path,), prefix + path)
    main = main_name(short)
    inner = {name.removeprefix(f"{main}."): leaf for name, leaf in short.items() if main and is_below(name, main)}
    beside = {name: leaf for name, leaf in short.items() if not main or not is_below(name, main)}
    if inner and beside:
        given = common_prefix(beside).rstrip(".") or next(iter(beside)).rpartition(".")[0]
        yield _Division(inner, beside, BESIDE, prefix + given)
        for names in NUMBERED:
            if all(name.partition(".")[0] in names for name in inner):
                yield _Division(_numbered(inner, names), beside, BESIDE, prefix + given, numbered=True)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) - 1))


def _numbered(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    found = {}
    for name, leaf in tensors.items():
        number, dot, rest = name.partition(".")
        found[f"{names[number]}{dot}{rest}"] = leaf
    return found


def _layers(head: Tensors) -> list[_Layer]:
    """The layers of a head in order; none if it is no chain of linear layers and batch norms that ends with a linear layer."""
    grouped: dict[str, dict[str, Any]] = {}
    for name in sorted(head, key=natural):
        place, _, part = name.rpartition(".")
        grouped.setdefault(place, {})[part] = head[name]
    alike = len({place.rpartition(".")[0] for place in grouped}) == 1
    numbers = [int(last) if alike and (last := place.rpartition(".")[2]).isdigit() else None for place in grouped]
    layers = [_Layer(parts, number) for parts, number in zip(grouped.values(), numbers, strict=True)]
    if not all("weight" in layer.tensors and len(layer.shape) in (1, 2) for layer in layers):
        return []
    linear = [layer for layer in layers if layer.is_linear]
    norms = [layer for layer in layers if not layer.is_linear]
    follows = all(layer.shape[-1] == before.shape[0] for before, layer in pairwise(layers))
    norms_known = all("running_mean" in layer.tensors for layer in norms)
    fits = follows and norms_known and layers[-1:] == linear[-1:] and len(linear) <= MOST_LINEAR >= len(norms)
    return layers if fits else []


def described_head(layers: Sequence[_Layer], activation: str = "relu") -> list[dict[str, Any]]:
    """The layers as the option `head` has them, with an activation between two linear layers where the numbers leave room for it."""
    rows: list[dict[str, Any]] = []
    places = [index for index, layer in enumerate(layers) if layer.is_linear]
    for index, layer in enumerate(layers):
        if layer.is_linear:
            outputs = None if layer is layers[-1] else layer.shape[0]
            bias = {} if "bias" in layer.tensors else {"bias": False}
            rows.append({"linear": outputs} | bias)
        else:
            rows.append({"norm": "batch"})
        if places[0] <= index < places[-1] and _is_activated(layers, index):
            rows.append({"activation": activation})
    return rows


def _is_activated(layers: Sequence[_Layer], index: int) -> bool:
    """Whether an activation follows a layer: once between two linear layers, where their numbers leave room, else behind the
    norms."""
    layer, after = layers[index], layers[index + 1]
    if layer.number is not None and after.number is not None:
        room = after.number - layer.number > 1
        earlier = not layer.is_linear and _is_activated(layers, index - 1)
        return room and not earlier
    return after.is_linear


def _of(
    candidate: Candidate,
    division: _Division,
    layers: Sequence[_Layer],
    contract: InputContract,
    activation: str = "relu",
) -> Iterator[Headed]:
    for place in division.places:
        for name in _networks_at(division.network, place)[:MOST_NETWORKS]:
            last, features = _classifier(name, place, contract)
            pooling = {features: [], 2 * features: [CONCAT_POOL]}.get(layers[0].shape[-1])
            if not last or pooling is None:
                continue
            if len(layers) == 1 and not pooling:
                options, renamed = {}, {f"{place}.{part}": leaf for part, leaf in layers[0].tensors.items()}
            else:
                rows = described_head(layers, activation)
                options = {"head": [*pooling, *rows], "head_at": place}
                renamed = dict(_renamed(rows, layers, place, 0 if last == place else 1))
            tensors = {**division.network, **renamed}
            found = replace(candidate, tensors=tensors, head=(division.given, place))
            yield Headed(name, options, layers[-1].shape[0], found)


def without_classifier(candidate: Candidate) -> str | None:
    """The network of a library whose weights a candidate has but for the classifier; None if it is no such."""
    prefix = common_prefix(candidate.tensors)
    short = {name.removeprefix(prefix): leaf for name, leaf in candidate.tensors.items()}
    forms = [
        short,
        *(_numbered(short, names) for names in NUMBERED if all(each.partition(".")[0] in names for each in short)),
    ]
    found = [name for form in forms for place in BESIDE for name in _networks_at(form, place)]
    return found[0] if found else None


def _networks_at(network: Tensors, place: str) -> list[str]:
    """Networks of libraries with these names and a published classifier at a place."""
    found: list[str] = []
    for inner in PUBLISHED.get(place, (("",),)):
        names = [f"{place}{each}.{part}" for each in inner for part in ("weight", "bias")]
        found += [name for name in with_names([*network, *names]) if name not in found]
    return found


def _classifier(name: str, place: str, contract: InputContract) -> tuple[str, int]:
    """The path of the last linear layer of a network, if it is at a place, and how many features the first one there reads; else
    an empty path."""
    try:
        with torch.device("meta"):
            network = networks.build(name, 2, contract)
    except SpecError:
        return "", 0
    last = last_linear(network)
    return (last, features_before(network, place)) if last and is_below(last, place) else ("", 0)


def _renamed(
    rows: Sequence[Mapping[str, Any]], layers: Sequence[_Layer], place: str, first: int
) -> Iterator[tuple[str, Any]]:
    """The head's tensors under the names that they have in a `nn.Sequential` whose layers begin with the number `first`."""
    numbers = [number for number, row in enumerate(rows, start=first) if "activation" not in row]
    for number, layer in zip(numbers, layers, strict=True):
        for part, leaf in layer.tensors.items():
            yield f"{place}.{number}.{part}", leaf
