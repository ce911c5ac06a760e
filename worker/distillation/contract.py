"""The input contract: shape and normalisation of the images that a network reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputContract:
    """The input of a network: float images (B, channels, height, width), `(pixel / 255 - mean) / std` per channel."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def blank(self, device: torch.device) -> Tensor:
        """Two images of zeros (2, channels, height, width), to find the shapes of activations with."""
        return torch.zeros(2, self.channels, self.height, self.width, device=device)


def read_contract(values: Mapping[str, Any]) -> InputContract:
    """An input contract from JSON."""
    channels, height, width = (int(values[name]) for name in ("channels", "height", "width"))
    return InputContract(channels, height, width, mean=tuple(values["mean"]), std=tuple(values["std"]))
