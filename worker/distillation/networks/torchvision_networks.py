"""torchvision's classification networks by name, with random weights."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, from_library, on_any_device

RESIDUAL = ("resnet", "resnext", "wide_resnet")
"""What the names of networks begin with that have a stem for small images."""


@dataclass(frozen=True)
class Options:
    """The first layers of a network of torchvision."""

    stem: Annotated[
        Literal["published", "cifar"],
        "The first layers: as published, or for images of about 32x32 pixels a 3x3 convolution with stride 1 and no max"
        " pooling, as much code for CIFAR has it. Only residual networks have `cifar`.",
    ] = "published"


def build(name: str, classes: int, contract: InputContract, options: Options = Options()) -> nn.Module:  # frozen
    """The network `name` for `classes`, with a first convolution for the contract's channels.

    Raises:
        SpecError: torchvision has no such classification network, or it cannot read images of this contract.
    """
    from torchvision import models
    from torchvision.models import get_model, list_models

    if name not in list_models(module=models):
        raise SpecError([Problem("/network", f"torchvision has no classification network {name!r}")])
    given = _options(name, contract)
    try:
        network = on_any_device(lambda: get_model(name, weights=None, num_classes=classes, **given))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        message = f"torchvision cannot build {name} for these classes and images: {error}"
        raise SpecError([Problem("/network", message)]) from error
    if contract.channels != 3:
        _replace_first_convolution(network, name, contract.channels)
    if options.stem == "cifar":
        _replace_stem(network, name, contract.channels)
    arguments = "".join(f", {key}={value!r}" for key, value in given.items())
    return from_library(
        network, f"torchvision.models.get_model({name!r}, weights=None, num_classes={classes}{arguments})"
    )


def _replace_stem(network: nn.Module, name: str, channels: int) -> None:
    """A 3x3 convolution instead of the 7x7 convolution and the pooling of a residual network."""
    if not name.startswith(RESIDUAL):
        raise SpecError([Problem("/options/stem", f"{name} has no other stem; only residual networks have `cifar`")])
    network.add_module("conv1", nn.Conv2d(channels, 64, 3, padding=1, bias=False))
    network.add_module("maxpool", nn.Identity())


def _options(name: str, contract: InputContract) -> dict[str, Any]:
    """Options that some builders need: no auxiliary heads, and the image size."""
    from torchvision.models import VisionTransformer, get_model_builder

    builder = get_model_builder(name)
    source = inspect.getsource(inspect.unwrap(builder))
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    if inspect.signature(builder).return_annotation is VisionTransformer:
        options["image_size"] = _square(name, contract)
    if "input_size" in source:
        options["input_size"] = (contract.height, contract.width)
    return options


def _square(name: str, contract: InputContract) -> int:
    if contract.height != contract.width:
        message = f"{name} requires square images, not {contract.height}x{contract.width}"
        raise SpecError([Problem("/network", message)])
    return contract.height


KEPT = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
"""Attributes of the first convolution that stay when it is replaced."""


def _replace_first_convolution(network: nn.Module, name: str, channels: int) -> None:
    """Replace the first convolution by one for another number of input channels, with random weights."""
    path, first = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != 3 or first.groups != 1:
        raise SpecError([Problem("/network", f"{name} requires images of 3 channels, not {channels}")])
    kept: dict[str, Any] = {each: getattr(first, each) for each in KEPT}
    fresh = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **kept)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, fresh)


PATTERN = Pattern(
    "torchvision/",
    r"^torchvision/[a-z0-9_]+$",
    "A classification network of torchvision by its name in torchvision, such as torchvision/resnet18, with random weights.",
    build,
    Options,
)
