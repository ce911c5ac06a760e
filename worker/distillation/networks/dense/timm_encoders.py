"""Networks for maps with an encoder of timm, with random weights."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.dense.fpn import PAPER, MapNetwork
from worker.distillation.networks.family import Network, by_name_alone, from_library, on_any_device
from worker.distillation.parameters import Range

LARGEST_STRIDE = 32


@dataclass(frozen=True)
class Options:
    """The encoder, and the width of the pyramid."""

    encoder: Annotated[str, "An encoder by its name in timm, such as mobilenetv3_small_100."] = "mobilenetv3_small_100"
    channels: Annotated[int, Range(ge=4, le=1024), "Channels of the pyramid."] = 64


class TimmEncoder(nn.Module):
    """The features of a network of timm at strides of 4 and more, up to 32. x (B, C, H, W) -> maps, finest first."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network(x)


def build(classes: int, contract: InputContract, options: Options, positive: bool = False) -> nn.Module:
    """The network for maps of `classes`.

    Raises:
        SpecError: timm has no such encoder, or it gives no maps of features at strides from 4.
    """
    with torch.device("cpu"):  # importing timm computes with tensors, which fails on the check's meta device
        import timm

    if not timm.is_model(options.encoder):
        raise SpecError([Problem("/options/encoder", f"timm has no network {options.encoder!r}")])
    try:
        inputs, chosen = _levels(options.encoder)
        found = on_any_device(lambda: _encoder(options.encoder, chosen, contract))
    except (ValueError, AssertionError, TypeError, RuntimeError, AttributeError) as error:
        message = f"timm cannot give the features of {options.encoder}: {str(error)[:300]}"
        raise SpecError([Problem("/options/encoder", message)]) from error
    return MapNetwork(found, inputs, options.channels, classes, positive)


def _levels(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The channels of the features at strides from 4 to 32, and their numbers among all features of a network."""
    import timm

    with torch.device("meta"):
        network: Any = timm.create_model(name, pretrained=False, features_only=True)
    strides, channels = network.feature_info.reduction(), network.feature_info.channels()
    chosen = tuple(number for number, stride in enumerate(strides) if 4 <= stride <= LARGEST_STRIDE)
    if not chosen or strides[chosen[0]] != 4 or len(set(strides)) != len(strides):
        raise ValueError(f"its features have strides of {strides}, and a pyramid needs one each of 4, 8, …")
    return tuple(channels[number] for number in chosen), chosen


def _encoder(name: str, chosen: tuple[int, ...], contract: InputContract) -> nn.Module:
    import timm

    network = timm.create_model(
        name, pretrained=False, features_only=True, out_indices=chosen, in_chans=contract.channels
    )
    given = f"pretrained=False, features_only=True, out_indices={chosen}, in_chans={contract.channels}"
    return TimmEncoder(from_library(network, f"timm.create_model({name!r}, {given})"))


NETWORKS = {
    "fpn_timm": Network(
        "An encoder of timm with a feature pyramid, for segmentation.", build, PAPER, Options, guess=by_name_alone
    ),
    "fpn_timm_depth": Network(
        "An encoder of timm with a feature pyramid, for depth: one positive output for each pixel.",
        partial(build, positive=True),
        PAPER,
        Options,
        guess=by_name_alone,
    ),
}
