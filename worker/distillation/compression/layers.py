"""The layers whose weights a transform may change."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from worker.distillation.introspection.taps import undisturbed
from worker.distillation.introspection.tracing import any_output, trace

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def weighted_layers(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """The paths of the convolutions and linear layers that run on `example` (B, C, H, W), in order of execution."""
    with undisturbed(network, example.device):
        started = trace(network, example, check_output=any_output).started
    return tuple(path for path in dict.fromkeys(started) if isinstance(network.get_submodule(path), WEIGHTED))


def inner_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """All layers but the first and the last."""
    return tuple(layers[1:-1])


def modules_at(network: nn.Module, paths: Sequence[str]) -> Iterator[nn.Module]:
    """The modules at these paths."""
    return (network.get_submodule(path) for path in paths)
