"""Activations in 8 bits: rounding at the inputs of layers and at the outputs of BatchNorm.

An activation x is `(q - z) s` with q = round(x / s) + z from 0 to 255, as ONNX's QuantizeLinear computes it; rounding is to the
nearest even.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.parametrised import is_set
from worker.distillation.introspection.taps import undisturbed

LARGEST = 255
INPUT, OUTPUT = "input_rounding", "output_rounding"
BATCH = 128
BINS = 2048
PARTS = tuple(number / 40 for number in range(40, 3, -1))
"""The parts of the range from the least to the largest value that are tried."""


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
        module.add_module(INPUT, Rounding(device_of(module)))
        module.register_forward_pre_hook(round_input)
    for path in outputs:
        module = network.get_submodule(path)
        module.add_module(OUTPUT, Rounding(device_of(module)))
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
    """Set the ranges of all roundings to those with the least squared error on the images (N, C, H, W).

    A range is a part of that from the least to the largest value, so that rare large values, such as those that synthesised images
    cause, do not make the steps of all others coarse. Errors are those of a histogram.
    """
    every = [each for _, each in roundings(network)]
    extremes: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    counts: dict[nn.Module, Tensor] = {}

    def widen(module: nn.Module, x: Tensor) -> None:
        low, high = extremes.get(module, (x.new_zeros(()), x.new_zeros(())))
        extremes[module] = low.minimum(x.amin()), high.maximum(x.amax())

    def count(module: nn.Module, x: Tensor) -> None:
        low, high = (float(each) for each in extremes[module])
        found = torch.histc(x.float().cpu(), BINS, low, high) if low < high else torch.zeros(BINS)
        counts[module] = counts.get(module, 0) + found

    for note in (widen, count):
        observe(network, every, images, note)
    for rounding in every:
        if rounding in extremes:
            rounding.set_range(*best_range(*extremes[rounding], counts[rounding]))


def observe(
    network: nn.Module, every: Sequence[nn.Module], images: Tensor, note: Callable[[nn.Module, Tensor], None]
) -> None:
    """Show `note` what each of these roundings reads while the network runs on the images, without rounding."""

    def hook(module: nn.Module, args: tuple[Any, ...], _output: Any) -> None:
        note(module, args[0].detach())

    with _inactive(every), undisturbed(network, images.device), ExitStack() as hooks:
        for each in every:
            hooks.callback(each.register_forward_hook(hook).remove)
        for part in images.split(BATCH):
            network(part)


def best_range(low: Tensor, high: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the range whose rounding has the least squared error, by a histogram (BINS,) of the whole range: the best part of both
    sides, then of each side by itself."""
    edges = torch.linspace(float(low), float(high), BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    trial = Rounding()

    @torch.no_grad()
    def error(parts: tuple[float, float]) -> float:
        trial.set_range(low.cpu() * parts[0], high.cpu() * parts[1])
        return float(((trial(centres) - centres).square() * counts).double().sum())

    best = min(((part, part) for part in PARTS), key=error)
    best = min(((part, best[1]) for part in PARTS), key=error)
    best = min(((best[0], part) for part in PARTS), key=error)
    return low * best[0], high * best[1]


@contextmanager
def _inactive(every: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which nothing is rounded."""
    flags = [each.get_buffer("active") for each in every]
    before = [flag.clone() for flag in flags]
    for flag in flags:
        flag.fill_(False)
    yield
    for flag, active in zip(flags, before, strict=True):
        flag.copy_(active)


def device_of(module: nn.Module) -> torch.device | None:
    """The device of a module's tensors; None if it has none."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
