"""timm's networks by name, with random weights."""

from typing import Any

import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, from_library, on_any_device
from worker.distillation.networks.replaced_head import PUBLISHED, HeadOptions, with_head


def build(name: str, classes: int, contract: InputContract, options: HeadOptions = PUBLISHED) -> nn.Module:
    """The network `name` for `classes` and the contract's channels; networks of fixed input size get the contract's size.

    Raises:
        SpecError: timm has no such network, or cannot build it for these images, or the head does not fit.
    """
    with torch.device("cpu"):  # importing timm computes with tensors, which fails on the check's meta device
        import timm

    if not timm.is_model(name):
        raise SpecError([Problem("/network", f"timm has no network {name!r}")])
    given: dict[str, Any] = {"num_classes": classes, "in_chans": contract.channels}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        given["img_size"] = (contract.height, contract.width)
    try:
        network = on_any_device(lambda: timm.create_model(name, pretrained=False, **given))
    except (ValueError, AssertionError, TypeError, RuntimeError) as error:
        raise SpecError(
            [Problem("/network", f"timm cannot build {name} for these classes and images: {error}")]
        ) from error
    for module in network.modules():
        if isinstance(getattr(module, "attention_bias_cache", None), dict):
            module.register_forward_hook(_forget)
    arguments = "".join(f", {key}={value!r}" for key, value in given.items())
    made = from_library(network, f"timm.create_model({name!r}, pretrained=False{arguments})")
    return with_head(made, options, classes)


def _forget(module: Any, _args: Any, _output: Any) -> None:
    """Empty timm's cache of attention biases after each pass.

    In eval mode it would keep the first pass's graph, which cannot go backwards twice or be copied, and outdated biases.
    """
    module.attention_bias_cache.clear()


PATTERN = Pattern(
    "timm/",
    r"^timm/[a-z0-9_.]+$",
    "A network of timm by its name in timm, such as timm/mobilenetv3_small_100, with random weights.",
    build,
    HeadOptions,
)
