"""Activations in 8 bits: rounding at the inputs of layers and at the outputs of BatchNorm.

An activation x is `(q - z) s` with q = round(x / s) + z from 0 to 255, as ONNX's QuantizeLinear computes it; rounding is to the
nearest even.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.parametrised import is_set
from worker.distillation.introspection.taps import undisturbed

LARGEST = 255
INPUT, OUTPUT = "input_rounding", "output_rounding"
BATCH = 128


class Rounding(nn.Module):
    """Rounds an activation to 256 values, with a straight-through gradient where it is not clipped; or not, until it is `active`."""

    of_a_transform = True
    scale: Tensor
    zero: Tensor
    active: Tensor

    def __init__(self, device: torch.device | None = None):
        super().__init__()
        self.register_buffer("scale", torch.ones(1, device=device))
        self.register_buffer("zero", torch.zeros(1, device=device))
        self.register_buffer("active", torch.zeros(1, dtype=torch.uint8, device=device))

    def forward(self, x: Tensor) -> Tensor:
        if not is_set(self.active):
            return x
        place = x / self.scale + self.zero
        clipped = place.clamp(0, LARGEST)
        codes = (x / self.scale).round() + self.zero
        rounded = (codes.clamp(0, LARGEST) - self.zero) * self.scale
        if not torch.is_grad_enabled():
            return rounded
        through = (clipped - self.zero) * self.scale
        return through + (rounded - through).detach()

    @torch.no_grad()
    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Cover the values from `low` to `high`, and zero."""
        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        scale = ((high - low) / LARGEST).reshape(1)
        scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
        self.scale.copy_(scale)
        self.zero.copy_((-low / scale).round().clamp(0, LARGEST))
        self.active.fill_(True)


def round_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The hook of a layer whose input is rounded."""
    rounding: Any = module.get_submodule(INPUT)
    return (rounding(args[0]), *args[1:])


def round_output(module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    """The hook of a layer whose output is rounded."""
    rounding: Any = module.get_submodule(OUTPUT)
    return rounding(output)


def attach(network: nn.Module, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Round the inputs of the layers at some paths, and the outputs of those at others, once ranges are set."""
    for path in inputs:
        module = network.get_submodule(path)
        module.add_module(INPUT, Rounding(_device(module)))
        module.register_forward_pre_hook(round_input)
    for path in outputs:
        module = network.get_submodule(path)
        module.add_module(OUTPUT, Rounding(_device(module)))
        module.register_forward_hook(round_output)


def detach(network: nn.Module) -> nn.Module:
    """Remove all rounding from a network, in place."""
    for module in list(network.modules()):
        for hooks, own in ((module._forward_pre_hooks, round_input), (module._forward_hooks, round_output)):
            for key in [key for key, hook in hooks.items() if hook is own]:
                del hooks[key]
        for name in (INPUT, OUTPUT):
            module._modules.pop(name, None)
    return network


def roundings(network: nn.Module) -> Iterator[tuple[str, Rounding]]:
    """All roundings with their paths."""
    return ((path, each) for path, each in network.named_modules() if isinstance(each, Rounding))


def measure_ranges(network: nn.Module, images: Tensor) -> None:
    """Set the ranges of all roundings to the least and the largest value that the images (N, C, H, W) cause."""
    extremes: dict[Rounding, list[Tensor]] = {}

    def seen(module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        assert isinstance(module, Rounding)
        low, high = args[0].amin(), args[0].amax()
        before = extremes.get(module)
        extremes[module] = [low, high] if before is None else [before[0].minimum(low), before[1].maximum(high)]

    every = [each for _, each in roundings(network)]
    with _inactive(every), undisturbed(network, images.device):
        handles = [each.register_forward_hook(seen) for each in every]
        for part in images.split(BATCH):
            network(part)
        for handle in handles:
            handle.remove()
    for rounding, (low, high) in extremes.items():
        rounding.set_range(low, high)


@contextmanager
def _inactive(every: list[Rounding]) -> Iterator[None]:
    """A context in which nothing is rounded."""
    before = [each.active.clone() for each in every]
    for each in every:
        each.active.fill_(False)
    yield
    for each, active in zip(every, before, strict=True):
        each.active.copy_(active)


def _device(module: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
