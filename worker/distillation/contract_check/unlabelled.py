"""Whether an input contract looks wrong, told without a labelled image."""

import torch
from torch import nn

from worker.distillation.contract import InputContract

IMAGES = 64
SATURATED = 0.9999
"""Probability of the first class from which an answer counts as saturated."""


def suspicions(network: nn.Module, contract: InputContract) -> list[str]:
    """Warnings, in words; the network is in evaluation mode and gives logits (B, K)."""
    return [*_large_numbers(contract), *_saturated(network, contract)]


def _large_numbers(contract: InputContract) -> list[str]:
    large = [name for name in ("mean", "std") if max(getattr(contract, name)) > 1]
    if not large:
        return []
    words = "is above 1: an input is `(pixel / 255 - mean) / std`, so mean and std are of pixels between 0 and 1"
    return [f"{' and '.join(large)} {words}; if yours are of 0 to 255, divide them by 255"]


@torch.no_grad()
def _saturated(network: nn.Module, contract: InputContract) -> list[str]:
    """A warning if the network gives one class to images of noise of every brightness and contrast, without a doubt."""
    draw = torch.Generator().manual_seed(0)
    size = (IMAGES, contract.channels, contract.height, contract.width)
    brightness, contrast = torch.rand(2, IMAGES, 1, 1, 1, generator=draw)
    image = (brightness + contrast * (torch.rand(size, generator=draw) - 0.5)).clamp(0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (contract.mean, contract.std))
    logits = network((image - mean) / std)
    if logits.shape[1] < 2:
        return []
    confidence, chosen = logits.softmax(1).max(1)
    if len(chosen.unique()) > 1 or float(confidence.min()) < SATURATED:
        return []
    return [
        f"the network gives class {int(chosen[0])} with a probability of almost 1 to {IMAGES} different images of noise: "
        "check mean and std, whose scale may be off, or give a dataset to check them with"
    ]
