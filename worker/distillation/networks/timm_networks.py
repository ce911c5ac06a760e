"""timm's networks by name, with fresh weights."""

from typing import Any

import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, on_any_device


def build(name: str, classes: int, contract: InputContract) -> nn.Module:
    """The network `name` for `classes` and the contract's channels; those of fixed size are made for the contract's.

    Raises:
        SpecError: timm has no such network, or cannot build it for these images.
    """
    with torch.device("cpu"):  # its imports compute with tensors, which the check's meta device cannot
        import timm

    if not timm.is_model(name):
        raise SpecError([Problem("/network", f"timm has no network called {name!r}")])
    options: dict[str, Any] = {"num_classes": classes, "in_chans": contract.channels}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        options["img_size"] = (contract.height, contract.width)
    try:
        return on_any_device(lambda: timm.create_model(name, pretrained=False, **options))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        raise SpecError([Problem("/network", f"timm cannot build {name} for this job: {error}")]) from error


PATTERN = Pattern(
    "timm/",
    r"^timm/[a-z0-9_.]+$",
    "A network of timm by its name there, such as timm/mobilenetv3_small_100; fresh weights.",
    build,
)
