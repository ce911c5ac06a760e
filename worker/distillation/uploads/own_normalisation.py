"""The mean and std of a layer that normalises images before a network."""

from dataclasses import replace

import torch

from worker.distillation.contract import InputContract
from worker.distillation.uploads.network_parts import normalisation_role
from worker.distillation.uploads.selection import Fit
from worker.distillation.uploads.weights_file.leaves import numel

MOST_MEAN = 10.0
"""A larger mean is one of pixels from 0 to 255, not from 0 to 1."""


def own_normalisation(fit: Fit, contract: InputContract) -> InputContract | None:
    """The contract with the mean and std that a file has beside the network; None if it has none that are whole."""
    own = {name: fit.candidate.tensors[name] for name in fit.left_over if name in fit.candidate.tensors}
    kept = {role: leaf for name, leaf in own.items() if (role := normalisation_role(name, leaf)) is not None}
    if kept.keys() != {"mean", "std"} or any(numel(leaf) != contract.channels for leaf in kept.values()):
        return None
    mean, std = (kept[role].read().flatten().double() for role in ("mean", "std"))
    if not bool(torch.isfinite(mean).all() and (std > 0).all()):
        return None
    scale = 255.0 if float(mean.abs().max()) > MOST_MEAN else 1.0
    means, stds = (tuple(round(float(x) / scale, 6) for x in given) for given in (mean, std))
    return replace(contract, mean=means, std=stds)
