"""BatchNorm statistics, corrected by what rounding changes.

Rounded weights and activations shift the mean and change the variance of what a BatchNorm reads. Both are measured before and after on
the same images, so that the correction has neither the noise of few images nor another augmentation than the training: the running
mean changes by the difference of the means, the running variance by the ratio of the variances. Nagel et al., arXiv:1906.04721, section
4.2 (bias correction) does the first without images. C: channels.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.introspection.modes import modes_kept, statistics_kept

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH = 128
SMALLEST = 1e-12
Moments = Mapping[str, tuple[Tensor, Tensor]]
"""Mean and variance (C,) of what each BatchNorm reads, by its path."""


@torch.no_grad()
def moments_of(network: nn.Module, images: Tensor) -> Moments:
    """The moments on images (N, C, H, W), where each BatchNorm normalises by its batch: what an earlier one shifts is then not counted
    again."""
    sums: dict[str, list[Tensor]] = {}
    norms = dict(_norms(network))
    with _batches_own_statistics(network, norms), ExitStack() as hooks:
        for path, module in norms.items():
            hooks.callback(module.register_forward_pre_hook(_adds_to(sums, path)).remove)
        for part in images.split(BATCH):
            network(part)
    found = {}
    for path, (count, first, second) in sums.items():
        mean = first / count
        found[path] = mean, (second / count - mean.square()).clamp(min=SMALLEST)
    return found


@torch.no_grad()
def correct(network: nn.Module, before: Moments, after: Moments) -> None:
    """Change the running statistics of a network by what lies between two measurements."""
    for path, (mean, variance) in after.items():
        module: Any = network.get_submodule(path)
        module.running_mean += (mean - before[path][0]).to(module.running_mean.dtype)
        module.running_var *= (variance / before[path][1]).to(module.running_var.dtype)


def _norms(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return (
        (path, module)
        for path, module in network.named_modules()
        if isinstance(module, NORMS) and module.track_running_stats
    )


@contextmanager
def _batches_own_statistics(network: nn.Module, norms: Mapping[str, nn.Module]) -> Iterator[None]:
    with statistics_kept(network), modes_kept(network):
        for module in norms.values():
            module.train()
        yield


def _adds_to(sums: dict[str, list[Tensor]], path: str) -> Any:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach().double()
        over = [dimension for dimension in range(x.ndim) if dimension != 1]
        own = [torch.tensor(float(x.numel() // x.shape[1]), device=x.device), x.sum(over), x.square().sum(over)]
        sums[path] = [old + new for old, new in zip(sums[path], own, strict=True)] if path in sums else own

    return hook
