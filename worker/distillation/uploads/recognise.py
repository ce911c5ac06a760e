"""A teacher of which something is left open: its network and its input are found from the weights and from labelled images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from worker.distillation.contract import InputContract, read_contract
from worker.distillation.contract_check.comparison import LEAST_SIGMA, even, sigma
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.networks.layer_list import to_json
from worker.distillation.recovery.chain import Layer, read_chain
from worker.distillation.recovery.layer_list import as_layer_list, chain_outputs
from worker.distillation.recovery.recovered import Recovered, margins
from worker.distillation.recovery.search import PROMISING, SECONDS, SURE, least_accuracy, listed, recover
from worker.distillation.uploads.found_network import FIND, Said
from worker.distillation.uploads.key_matching import strip_prefixes
from worker.distillation.uploads.labelled_images import LabelledImages, sample
from worker.distillation.uploads.measured_networks import MeasuredNetwork, measured
from worker.distillation.uploads.network_parts import without_doubles
from worker.distillation.uploads.single_output import WARNING, has_single_output, with_two_outputs
from worker.distillation.uploads.state_dicts import OpenFile, largest, numbers_of, open_weights

NETWORK = "layers"
LIKELY = ((1, 28), (1, 32), (3, 32), (3, 64), (3, 224))
"""Channels and sizes of images for which candidates are listed where there are no images."""
ASK = "Give a `dataset` with labels, by whose images the network is recognised; or describe it layer by layer."
CLEARLY = 0.03
"""A chain is taken instead of a network of the catalogue if its accuracy is higher by this."""
SHORT = 6
"""Most convolutions of a short chain."""
MOST_READINGS = 20
ALSO = {(28, 28): (32, 32), (32, 32): (28, 28)}
"""Sizes that images of a size are often brought to, by code for LeNet-5."""
GOOD_ENOUGH = 0.995
"""From this accuracy on no other size is tried."""
OTHER_SIGMA = 2.0
"""Standard deviations by which a network that reads only the other size is better than one that reads only the images' own."""
NAMED_SHARE = 0.3
"""Part of the time for networks of the catalogue; the rest is for chains of layers."""


@dataclass(frozen=True)
class Recognised:
    """The teacher as a user would have described it; the file with its weights under the names of that description; the
    finding `recognised`; and warnings."""

    described: dict[str, Any]
    upload: Path
    finding: dict[str, Any]
    warnings: tuple[str, ...] = ()


def recognised(
    said: Mapping[str, Any], upload: Path, dataset: Path, limits: UploadLimits, folder: Path, seconds: float = SECONDS
) -> Recognised:
    """Find what is left open of a teacher, its network or its input, and measure it.

    Networks of the catalogue that fit the weights are measured first. If none of them does very well and the weights are a short
    chain of layers, the ways to join them are searched: a LeNet may have other activations than those of the catalogue. So it is with
    long chains if none does well.

    Raises:
        SpecError: the dataset has no labels, or other classes.
        UploadError: no network with these weights does well on the images.
    """
    images = sample(dataset).in_order(said.get("class_names") or ())
    if int(images.label.max()) == 1 and (two := _with_two_outputs(upload, said, limits, folder)):
        found = _recognised({**said, "weights": "auto", "classes": 2}, two, images, limits, folder, seconds)
        return replace(found, warnings=(*found.warnings, WARNING))
    return _recognised(said, upload, images, limits, folder, seconds)


def _with_two_outputs(upload: Path, said: Mapping[str, Any], limits: UploadLimits, folder: Path) -> Path | None:
    """A file with two outputs in place of the one that the network in the upload has; None if it has several."""
    with open_weights(upload, limits) as file:
        candidate = largest(file.candidates, str(said.get("weights") or "auto"))
        if not has_single_output(candidate):
            return None
        path = folder / "two_outputs.safetensors"
        with_two_outputs(candidate, numbers_of(candidate, limits), path)
        return path


def _recognised(
    said: Mapping[str, Any], upload: Path, images: LabelledImages, limits: UploadLimits, folder: Path, seconds: float
) -> Recognised:
    given = read_contract(said["input"]) if said.get("input") else None
    with open_weights(upload, limits) as file:
        images = images.fitted(given or _blank(images, _channels_read(file, said, images)))
        asked = _asked(said, given or _blank(images, images.channels))
        named = _named(asked, given, file, images, limits, seconds * NAMED_SHARE)
        if named and (asked.network != FIND or named[0].best.accuracy >= SURE):
            return _of_catalogue(said, named, images, upload)
        state = _state(file, asked.weights, limits)
    least = min(PROMISING, least_accuracy(images.commonest))
    known = [one for one in named if one.best.accuracy >= least]
    try:
        chain = read_chain(state, images.channels)
        long = sum(layer.kind == "conv" for layer in chain) > SHORT
        if named and long and named[0].best.accuracy >= PROMISING:
            return _of_catalogue(said, named, images, upload)
        _check_classes(asked, images, chain)
        found = recover(chain, images.image, images.label, seconds * (1 - NAMED_SHARE), given)
    except UploadError as error:
        if known:
            return _of_catalogue(said, known, images, upload)
        tried = (
            f"{named[0].network} is right on {named[0].best.accuracy:.1%} of the images" if named else "none is known"
        )
        raise UploadError(f"no network was recognised: {tried}, and {error.message}", error.hint) from error
    if known and known[0].best.accuracy > found.best.accuracy - CLEARLY:
        return _of_catalogue(said, known, images, upload)
    return _of_chain(said, found, chain, state, images, folder)


def _named(
    asked: Said,
    given: InputContract | None,
    file: OpenFile,
    images: LabelledImages,
    limits: UploadLimits,
    seconds: float,
) -> list[MeasuredNetwork]:
    """The networks of the catalogue that fit, at the size of the images; at another usual size where they are clearly better."""
    other = ALSO.get(images.size) if given is None else None
    found = measured(asked, given, file.candidates, images, limits, seconds / (2 if other else 1))
    if other is None or (found and found[0].best.accuracy > GOOD_ENOUGH):
        return found
    larger = replace(asked, contract=replace(asked.contract, height=other[0], width=other[1]))
    again = measured(larger, given, file.candidates, images, limits, seconds / 2)
    if not found or not again:
        return found or again
    rights = found[0].best.right, again[0].best.right
    if (found[0].network, found[0].options) == (again[0].network, again[0].options):
        # networks with global pooling read any size, and do about as well at similar ones
        return found if even(*rights, LEAST_SIGMA) else again
    return again if sigma(*rights) >= OTHER_SIGMA else found


def _state(file: OpenFile, choice: str, limits: UploadLimits) -> dict[str, Tensor]:
    """The state dict with the most tensors, each tensor under its first name."""
    candidate = largest(file.candidates, choice)
    return strip_prefixes(numbers_of(replace(candidate, tensors=without_doubles(candidate.tensors)), limits))


def _asked(said: Mapping[str, Any], contract: InputContract) -> Said:
    return Said.of({**said, "network": said.get("network") or FIND, "input": asdict(contract)})


def _channels_read(file: OpenFile, said: Mapping[str, Any], images: LabelledImages) -> int:
    """The channels of the images that the first convolution reads; those that the images have where it does not tell."""
    tensors = largest(file.candidates, str(said.get("weights") or "auto")).tensors.values()
    first = next((leaf.shape for leaf in tensors if len(leaf.shape) == 4), (0, 0))
    return first[1] if {first[1], images.channels} == {1, 3} else images.channels


def _blank(images: LabelledImages, channels: int) -> InputContract:
    """The images as they are, with so many channels."""
    return InputContract(channels, *images.size, (0.0,) * channels, (1.0,) * channels)


def _check_classes(asked: Said, images: LabelledImages, chain: tuple[Layer, ...]) -> None:
    classes = chain_outputs(chain)
    if asked.classes not in (None, classes):
        raise SpecError([Problem("/classes", f"is {asked.classes}, and the last layer gives {classes} numbers")])
    images.check_classes(classes)


def _of_catalogue(
    said: Mapping[str, Any], named: list[MeasuredNetwork], images: LabelledImages, upload: Path
) -> Recognised:
    best = named[0].best
    described = {**said, **named[0].described(), "class_names": _class_names(said, images, named[0].classes)}
    readings = [reading for one in named for reading in one.readings(best)]
    return Recognised(described, upload, _finding(best.accuracy, len(best.right), images, readings), named[0].warnings)


def _of_chain(
    said: Mapping[str, Any],
    found: Recovered,
    chain: tuple[Layer, ...],
    state: Mapping[str, Tensor],
    images: LabelledImages,
    folder: Path,
) -> Recognised:
    layers, weights, contract = as_layer_list(found.best.reading, chain, images.channels)
    path = folder / "recognised.safetensors"
    save_file(weights, path)
    classes = chain_outputs(chain)
    described = {
        **said,
        "network": NETWORK,
        "classes": classes,
        "class_names": _class_names(said, images, classes),
        "options": {"layers": to_json(layers)},
        "input": asdict(contract),
        "weights": "auto",
    }
    best = found.best
    finding = _finding(best.accuracy, len(best.right), images, margins(found))
    return Recognised(
        described, path, finding | {"tried": found.tried, "layers": to_json(layers)}, _unused(state, chain)
    )


def _unused(state: Mapping[str, Tensor], chain: tuple[Layer, ...]) -> tuple[str, ...]:
    """A warning that names the linear layer that a chain leaves out, if there is one."""
    used = {layer.name for layer in chain}
    names = [
        name.removesuffix(".weight") for name, tensor in state.items() if name.endswith(".weight") and tensor.ndim == 2
    ]
    unused = [name for name in names if name not in used]
    return (
        (f"the linear layer `{unused[0][:100]}` has no place between the other layers, and was left out",)
        if unused
        else ()
    )


def _finding(accuracy: float, count: int, images: LabelledImages, readings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "accuracy": round(accuracy, 4),
        "images": count,
        "split": images.split,
        "readings": readings[:MOST_READINGS],
    }


def _class_names(said: Mapping[str, Any], images: LabelledImages, classes: int) -> list[str]:
    """The user's class names, else those of the dataset, whose numbers the network answers with."""
    if said.get("class_names") or not images.named or len(images.class_names) != classes:
        return list(said.get("class_names") or ())
    return list(images.class_names)


def candidates_of(file: OpenFile, said: Mapping[str, Any], limits: UploadLimits) -> str:
    """The plainest networks that have the layers of a file, in words: for images of the size that is said, or of usual sizes."""
    state = _state(file, str(said.get("weights") or "auto"), limits)
    given = read_contract(said["input"]) if said.get("input") else None
    sizes = (
        [(given.channels, (given.height, given.width))] if given else [(each, (side, side)) for each, side in LIKELY]
    )
    proposals = []
    for channels, size in sizes:
        words = _candidates(state, channels, size)
        proposals += [f"for images of {channels} x {size[0]} x {size[1]}: {words}"] if words else []
    return "; ".join(proposals[:3]) or "its layers are no chain that could be recognised by images"


def without_images(upload: Path, said: Mapping[str, Any], limits: UploadLimits) -> SpecError:
    """The error that a teacher has neither an input nor images by which it is found."""
    with open_weights(upload, limits) as file:
        listed_words = candidates_of(file, said, limits)
    words = f"is required, since the input is not given. {listed_words}"
    return SpecError([Problem("/dataset", words)], ASK)


def _candidates(state: Mapping[str, Tensor], channels: int, size: tuple[int, int]) -> str:
    try:
        return listed(read_chain(state, channels), size, most=3, others=())
    except UploadError:
        return ""
