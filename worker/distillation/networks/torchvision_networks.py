"""torchvision's classification networks by name, with fresh weights."""

import inspect
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, on_any_device


def build(name: str, classes: int, contract: InputContract) -> nn.Module:
    """The network `name` for `classes`, its first convolution made to fit the contract's channels.

    Raises:
        SpecError: torchvision has no such classification network, or it cannot read images of this contract.
    """
    from torchvision import models
    from torchvision.models import get_model, list_models

    if name not in list_models(module=models):
        raise SpecError([Problem("/network", f"torchvision has no classification network called {name!r}")])
    options = _options(name, contract)
    try:
        network = on_any_device(lambda: get_model(name, weights=None, num_classes=classes, **options))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        raise SpecError([Problem("/network", f"torchvision cannot build {name} for this job: {error}")]) from error
    if contract.channels != 3:
        _read_channels(network, name, contract.channels)
    return network


def _options(name: str, contract: InputContract) -> dict[str, Any]:
    """What some builders want: no auxiliary heads, and the size of the images."""
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
        raise SpecError([Problem("/network", f"{name} reads square images only")])
    return contract.height


ALIKE = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
"""What convolutions keep that are made to read another number of channels."""


def _read_channels(network: nn.Module, name: str, channels: int) -> None:
    """Replace the first convolution by one like it that reads another number of channels, with fresh weights."""
    path, first = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != 3 or first.groups != 1:
        raise SpecError([Problem("/network", f"{name} reads images of 3 channels only, not {channels}")])
    alike: dict[str, Any] = {each: getattr(first, each) for each in ALIKE}
    fresh = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **alike)
    parent, _, attribute = path.rpartition(".")
    setattr(network.get_submodule(parent), attribute, fresh)


PATTERN = Pattern(
    "torchvision/",
    r"^torchvision/[a-z0-9_]+$",
    "A classification network of torchvision by its name there, such as torchvision/resnet18; fresh weights.",
    build,
)
