"""Networks of the catalogue that weights fit, measured on labelled images: which of them it is, and which normalisation it reads."""

import math
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import torch.nn.functional as F
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.contract_check.comparison import (
    LEAST_SIGMA,
    Measured,
    about_lowest,
    by_truth,
    clearly_better,
    compare,
    even,
    names_class,
    outputs,
    sigma,
    table,
)
from worker.distillation.contract_check.normalisations import Normalisation, declared, distinct, usual
from worker.distillation.limits import UploadLimits
from worker.distillation.process.stopwatch import Stopwatch
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.found_network import FIND, Said, check_size
from worker.distillation.uploads.labelled_images import LabelledImages
from worker.distillation.uploads.network_search import Proposal
from worker.distillation.uploads.said_network import offered_for, weights_of

MOST_MEASURED = 32
MOST_IN_TURN = 12
"""Networks for which there is time in any case before the best are measured on all images."""
FIRST_IMAGES = 512
HEAD_ACTIVATIONS = ("leaky_relu", "tanh", "sigmoid", "elu", "gelu", "silu")
"""Activations that are tried between the linear layers of a library's network, beside relu."""
KEPT = 6
"""Networks that are measured on all images."""
LOSS_IMAGES = 512
"""Images whose cross-entropy decides between normalisations with even accuracies."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network with the weights of the file, and how often it is right; `rows` are all normalisations, the taken one first."""

    network: str
    options: dict[str, Any]
    classes: int
    contract: InputContract
    rows: tuple[Measured, ...]
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Measured:
        return self.rows[0]

    def described(self) -> dict[str, Any]:
        """As a user would have described it."""
        return {
            "network": self.network,
            "options": self.options,
            "classes": self.classes,
            "input": vars(self.contract),
        }

    def readings(self, best: Measured) -> list[dict[str, Any]]:
        """The normalisations that are not clearly worse than `best`, as plain values."""
        return [
            {
                "network": self.network,
                "options": self.options,
                "normalisation": row.name,
                "accuracy": round(row.accuracy, 4),
                "margin": round(best.accuracy - row.accuracy, 4),
                "sigma": round(sigma(row.right, best.right), 1),
            }
            for row in self.rows
            if sigma(row.right, best.right) < LEAST_SIGMA
        ]


def measured(
    said: Said,
    given: InputContract | None,
    found: Sequence[Candidate],
    images: LabelledImages,
    limits: UploadLimits,
    seconds: float,
) -> list[MeasuredNetwork]:
    """The networks that fit the weights, the one that is right most often first; empty if none is known.

    Args:
        said: what the user says of the teacher; its contract is `given`, or that of the images as they are.
        given: the contract that the user declares: its normalisation is kept, and a clearly better one is a warning.

    Raises:
        UploadError: the weights are not those of the network that was named.
        SpecError: the network cannot be built, or tells fewer classes apart than the images have.
    """
    taken = Stopwatch()
    images = images.fitted(said.contract)
    few = replace(images, image=images.image[:FIRST_IMAGES], label=images.label[:FIRST_IMAGES])
    rated: list[tuple[float, int, Said]] = []  # the plainest first among equal ones
    for each in [said] if said.network != FIND else islice(_possible(said, found, limits), MOST_MEASURED):
        if rated and taken.seconds > seconds / 2:
            break
        rated.append(
            (-_measure(each, given, found, few, limits, seconds / 2 / MOST_IN_TURN).best.accuracy, len(rated), each)
        )
    left = max(seconds - taken.seconds, 1.0) / KEPT
    kept = sorted(sorted(rated, key=lambda row: row[:2])[:KEPT], key=lambda row: row[1])
    again = [_measure(each, given, found, images, limits, left) for _, _, each in kept]
    most = max(again, key=lambda one: one.best.accuracy, default=None)
    # the plainest of those that are even with the best comes first
    plain = next((one for one in again if most and even(one.best.right, most.best.right)), None)
    return sorted(again, key=lambda one: (one is not plain, -one.best.accuracy))


def _measure(
    said: Said,
    given: InputContract | None,
    found: Sequence[Candidate],
    images: LabelledImages,
    limits: UploadLimits,
    seconds: float,
) -> MeasuredNetwork:
    loaded = weights_of(said, found, limits)
    images.check_classes(loaded.classes)
    network: nn.Module = loaded.network
    network.load_state_dict(loaded.matched.state)
    plain = usual(images.image)
    own = loaded.contract != said.contract  # the file has a normalisation of its own
    first = declared(loaded.contract) if given is not None or own else plain[0]
    first = replace(first, name="the file's own") if own else first
    judgement = by_truth(names_class, images.label, "")
    rows = compare(network.eval(), images.image, judgement, first, distinct([first, *plain])[1:], seconds)
    best = _best(rows, network, images)
    warnings: tuple[str, ...] = ()
    if given is not None or own:
        if clearly_better(rows[0], best, judgement):
            warnings = (_doubt(rows, best),)
        best = rows[0]
    used: Normalisation = best.normalisation or first
    contract = replace(loaded.contract, mean=used.mean, std=used.std)
    ordered = (best, *(row for row in rows if row is not best))
    return MeasuredNetwork(loaded.name, loaded.options, loaded.classes, contract, ordered, warnings)


def _best(rows: Sequence[Measured], network: nn.Module, images: LabelledImages) -> Measured:
    """The row that is right most often; of rows that are even with it, the first whose cross-entropy is about the lowest.

    Accuracy alone hardly tells the scale of the pixels: a network without biases has the same under all of them. Its loss is
    lowest where it was trained.
    """
    most = max(rows, key=lambda row: row.accuracy)
    tied = [row for row in rows if row.normalisation is not None and even(row.right, most.right)]
    if len(tied) < 2:
        return most
    return tied[about_lowest([_loss(row, network, images) for row in tied])]


def _loss(row: Measured, network: nn.Module, images: LabelledImages) -> float:
    """The mean cross-entropy under a row's normalisation, in nats."""
    assert row.normalisation is not None
    image, label = images.image[:LOSS_IMAGES], images.label[:LOSS_IMAGES]
    loss = float(F.cross_entropy(outputs(network, image, row.normalisation).double(), label))
    return loss if math.isfinite(loss) else sys.float_info.max


def _doubt(rows: Sequence[Measured], best: Measured) -> str:
    """The warning that another normalisation than the declared one is clearly better."""
    return (
        f"the network is right on {rows[0].accuracy:.1%} of {len(rows[0].right)} images with the mean and std of `input`, "
        f"and on {best.accuracy:.1%} with `{best.name}`; leave `input` out to have them found. All: {table(rows)}"
    )


def _possible(said: Said, found: Sequence[Candidate], limits: UploadLimits) -> Iterator[Said]:
    """The networks that fit, each with all values of the options that weights do not show; equal ones once."""
    seen: set[str] = set()
    for proposal in offered_for(said, found):
        check_size(proposal.network, proposal.options, proposal.classes, said.contract, limits)
        for options in _variants(proposal):
            key = repr((proposal.network, sorted(options.items()), proposal.classes))
            if key not in seen:
                seen.add(key)
                yield replace(said, network=proposal.network, options=options, classes=proposal.classes)


def _variants(proposal: Proposal) -> Iterator[dict[str, Any]]:
    network = networks.named().get(proposal.network)
    hints = typing.get_type_hints(network.options_type, include_extras=True) if network else {}
    unseen = [name for name in (network.unseen if network else {}) if name in hints and name not in proposal.options]
    values: Mapping[str, Sequence[Any]] = {name: typing.get_args(typing.get_args(hints[name])[0]) for name in unseen}
    for chosen in product(*values.values()):
        yield proposal.options | dict(zip(values, chosen, strict=True))
    head = proposal.options.get("head", ())
    if any("activation" in row for row in head):
        for activation in HEAD_ACTIVATIONS:
            yield proposal.options | {
                "head": [row | ({"activation": activation} if "activation" in row else {}) for row in head]
            }
