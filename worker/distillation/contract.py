"""The input contract: shape and normalisation of the images that a network reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Example, Range, parse

MOST_CHANNELS = 64
MOST_PIXELS = 4096
"""Maximum height and width of an image."""


@dataclass(frozen=True)
class InputContract:
    """The input of a network: float images (B, channels, height, width), `(pixel / 255 - mean) / std` per channel."""

    channels: Annotated[int, Range(ge=1, le=MOST_CHANNELS), "Number of channels.", Example(1)]
    height: Annotated[int, Range(ge=1, le=MOST_PIXELS), "Height of an image in pixels.", Example(32)]
    width: Annotated[int, Range(ge=1, le=MOST_PIXELS), "Width of an image in pixels.", Example(32)]
    mean: Annotated[tuple[float, ...], "Mean of each channel, for pixel values from 0 to 1.", Example([0.1307])]
    std: Annotated[
        tuple[Annotated[float, Range(gt=0)], ...],
        "Standard deviation of each channel, for pixel values from 0 to 1.",
        Example([0.3081]),
    ]

    def blank(self, device: torch.device) -> Tensor:
        """Two images of zeros (2, channels, height, width), for finding the shapes of activations."""
        return torch.zeros(2, self.channels, self.height, self.width, device=device)

    def pixel_range(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The normalised values of black and of white, each (channels, 1, 1)."""
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.std))
        return -mean / std, (1 - mean) / std


def read_contract(values: Mapping[str, Any], pointer: str = "/input") -> InputContract:
    """An input contract from JSON; `pointer` is its place there.

    Raises:
        SpecError: a value is missing, of the wrong type or out of range, or mean or std does not have one number per
            channel.
    """
    contract = parse(InputContract, values, pointer)
    wrong = [
        Problem(f"{pointer}/{name}", f"must have one number for each of {contract.channels} channels, not {len(given)}")
        for name, given in (("mean", contract.mean), ("std", contract.std))
        if len(given) != contract.channels
    ]
    if wrong:
        raise SpecError(wrong)
    return contract
