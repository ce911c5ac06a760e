"""torchvision's classification networks by name, with random weights."""

import inspect
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, from_library, on_any_device


def build(name: str, classes: int, contract: InputContract) -> nn.Module:
    """The network `name` for `classes`, with a first convolution for the contract's channels.

    Raises:
        SpecError: torchvision has no such classification network, or it cannot read images of this contract.
    """
    from torchvision import models
    from torchvision.models import get_model, list_models

    if name not in list_models(module=models):
        raise SpecError([Problem("/network", f"torchvision has no classification network {name!r}")])
    options = _options(name, contract)
    try:
        network = on_any_device(lambda: get_model(name, weights=None, num_classes=classes, **options))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        message = f"torchvision cannot build {name} for these classes and images: {error}"
        raise SpecError([Problem("/network", message)]) from error
    if contract.channels != 3:
        _replace_first_convolution(network, name, contract.channels)
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    return from_library(network, f"torchvision.models.get_model({name!r}, weights=None, num_classes={classes}{given})")


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
)
