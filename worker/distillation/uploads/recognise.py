"""A teacher that nobody described: its network is found from the weights and from labelled images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.networks.layer_list import to_json
from worker.distillation.recovery.chain import Layer, read_chain
from worker.distillation.recovery.layer_list import as_layer_list, chain_outputs
from worker.distillation.recovery.search import MOST, SECONDS, listed, margins, recover
from worker.distillation.uploads.key_matching import strip_prefixes
from worker.distillation.uploads.state_dicts import largest, numbers_of, open_weights

NETWORK = "layers"
LIKELY = ((1, 28), (1, 32), (3, 32), (3, 64), (3, 224))
"""Channels and sizes of images for which candidates are listed where there are no images."""


def recognised(
    said: Mapping[str, Any], upload: Path, dataset: Path | None, limits: UploadLimits, folder: Path
) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    """Find the network of uploaded weights.

    Returns:
        The teacher as a user would have described it; a file in `folder` with the weights under the names of that
        description; and the finding `recognised`: `accuracy`, `images`, `tried`, `readings` (the best, and those that are
        not clearly worse, with their margins) and `layers`.

    Raises:
        SpecError: there are no labelled images, or they have other classes.
        UploadError: the weights are no chain of layers, or no network with them does well on the images.
    """
    with open_weights(upload, limits) as file:
        candidate = largest(file.candidates, str(said.get("weights") or "auto"))
        state = strip_prefixes(numbers_of(candidate, limits))
    if dataset is None:
        raise SpecError(
            [Problem("/dataset", _without_images(state))], "Name a dataset with labels, or describe the network."
        )
    image, label = labelled_sample(dataset)
    chain = read_chain(state, image.shape[1])
    classes = chain_outputs(chain)
    if int(label.max()) >= classes:
        words = f"has labels up to {int(label.max())}, and the network tells {classes} classes apart"
        raise SpecError([Problem("/dataset", words)])
    found = recover(chain, image, label, float(said.get("recovery_seconds") or SECONDS))
    layers, weights, contract = as_layer_list(found.best.reading, chain, image.shape[1])
    path = folder / "recognised.safetensors"
    save_file(weights, path)
    described = {
        "network": NETWORK,
        "classes": classes,
        "options": {"layers": to_json(layers)},
        "input": vars(contract),
    }
    report = {"accuracy": round(found.best.accuracy, 4), "images": len(found.best.right), "tried": found.tried}
    return {**said, **described}, path, report | {"readings": margins(found), "layers": to_json(layers)}


def labelled_sample(dataset: Path) -> tuple[Tensor, Tensor]:
    """At most 2048 uint8 images (N, C, H, W) of a canonical dataset, evenly spaced, and their labels (N,)."""
    with safe_open(dataset, framework="pt") as file:
        names = set(file.keys())
        if "train.label" not in names or len(file.get_slice("train.label").get_shape()) != 1:
            raise SpecError(
                [Problem("/dataset", "does not name one class for each image, by which a network is recognised")]
            )
        image, label = file.get_slice("train.image"), file.get_tensor("train.label")
        step = max(1, len(label) // MOST)
        return image[::step][:MOST], label[::step][:MOST]


def _without_images(state: Mapping[str, Tensor]) -> str:
    """The plainest networks that have these layers, for images of usual sizes."""
    proposals = []
    for channels, size in LIKELY:
        chain = _chain(state, channels)
        if chain is not None:
            words = _candidates(chain, size)
            proposals += [f"for images of {channels} x {size} x {size}: {words}"] if words else []
    listed_words = "; ".join(proposals[:3]) or "its layers are no chain that can be recognised"
    return f"is required to recognise the network, since none is named. {listed_words}"


def _chain(state: Mapping[str, Tensor], channels: int) -> tuple[Layer, ...] | None:
    try:
        return read_chain(state, channels)
    except UploadError:
        return None


def _candidates(chain: tuple[Layer, ...], size: int) -> str:
    try:
        return listed(chain, (size, size), most=3)
    except UploadError:
        return ""
