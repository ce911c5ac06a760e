"""Statistics of a teacher's activations on real data, the input of the source `metadata`.

The images never leave the user's machine. The statistics hold, for each class, the mean and the principal directions of
the activations. This module needs PyTorch and safetensors, which the client does not install.

    from distillery_client.statistics import collect, write
    write("statistics.safetensors", collect(network, loader, classes=10))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

MIN_PER_CLASS = 2
MAX_PER_CLASS = 1000
RANK = 64


def collect(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: int,
    taps: Sequence[str] | None = None,
    rank: int = RANK,
    most_a_class: int = MAX_PER_CLASS,
) -> dict[str, Tensor]:
    """Compute statistics of a network's activations on labelled images, by the names that the service reads.

    Args:
        network: the teacher; its module names are those of the uploaded state dict.
        batches: normalised images, as the network reads them, and their labels (B,).
        classes: number of classes.
        taps: names of activations: `PATH` is the output of the module at that path, `PATH:in` its input. If None: the input
            of the last linear layer, which `match: top_layer` needs.
        rank: number of principal directions of a class's covariance to keep, those with the largest variance. Several taps
            are decomposed jointly, weighted so that each tap counts equally.
        most_a_class: number of images per class to use, the first ones.

    Returns:
        `TAP/mean` (classes, D), `TAP/factor` (classes, R, D) and `TAP/minimum` (). R is the smallest of `rank`, the total
        size of the taps, and the number of images of the smallest class minus one. The factor gives the covariance of a
        class exactly if R is the total size of the taps or the number of images of the class minus one.

    Raises:
        ValueError: the network has no such tap or no linear layer, or a class has fewer than two images.
    """
    import torch

    names = list(taps) if taps is not None else [f"{_last_linear(network)}:in"]
    kept: list[list[Tensor]] = [[] for _ in range(classes)]
    counts, sizes = [0] * classes, {}
    for image, label in batches:
        captured = _capture(network, image, names)
        sizes = {name: captured[name][0].numel() for name in names}
        rows = torch.cat([captured[name].flatten(1).float().cpu() for name in names], dim=1)
        for number in range(classes):
            chosen = rows[label.cpu() == number][: most_a_class - counts[number]]
            if len(chosen):
                kept[number].append(chosen)
                counts[number] += len(chosen)
    few = [number for number, count in enumerate(counts) if count < MIN_PER_CLASS]
    if few:
        raise ValueError(f"classes {few} have fewer than {MIN_PER_CLASS} images each: add images of these classes")
    width = torch.cat([torch.full((size,), size**-0.5) for size in sizes.values()])
    rank = min(rank, min(counts) - 1, int(sum(sizes.values())))
    means, factors = zip(*(_mean_and_factor(torch.cat(rows), width, rank) for rows in kept), strict=True)
    least_D = torch.stack([torch.cat(rows).amin(dim=0) for rows in kept]).amin(dim=0)
    numbers = list(sizes.values())
    least = torch.split(least_D, numbers)
    mean_of = torch.split(torch.stack(means), numbers, dim=1)
    factor_of = torch.split(torch.stack(factors), numbers, dim=2)
    found: dict[str, Tensor] = {}
    for at, name in enumerate(names):
        found[f"{name}/mean"] = mean_of[at].contiguous()
        found[f"{name}/factor"] = factor_of[at].contiguous()
        found[f"{name}/minimum"] = least[at].amin()
    return found


def write(path: str | Path, statistics: dict[str, Tensor]) -> None:
    """Write statistics to a file for `distillery files upload --kind statistics`."""
    from safetensors.torch import save_file

    save_file(statistics, path)


def _mean_and_factor(rows_ND: Tensor, width_D: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The mean (D,), and a factor F (rank, D) such that F^T F approximates the covariance.

    F holds the first principal directions of the activations after these are scaled by `width_D`.
    """
    import torch

    mean_D = rows_ND.mean(dim=0)
    centred = (rows_ND - mean_D) * width_D
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    factor = directions[:rank] * (values[:rank] / (len(rows_ND) - 1) ** 0.5)[:, None]
    return mean_D, factor / width_D


def _capture(network: nn.Module, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The activations of one batch in evaluation mode; restores the mode of every module."""
    import torch

    captured: dict[str, Tensor] = {}
    was_training = [(module, module.training) for module in network.modules()]
    hooks = [_hook(network, name, captured) for name in names]
    try:
        network.eval()
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was_training:
            module.training = training
    return captured


def _hook(network: nn.Module, name: str, captured: dict[str, Tensor]) -> Any:
    path, colon, side = name.partition(":")
    modules = dict(network.named_modules())
    if path not in modules or (colon and side != "in"):
        raise ValueError(f"the network has no activation {name!r}; its modules are {', '.join(filter(None, modules))}")

    # clone, because the next layer may work in place
    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured[name] = inputs[0].clone()

    def after(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        captured[name] = output.clone()

    return modules[path].register_forward_pre_hook(before) if colon else modules[path].register_forward_hook(after)


def _last_linear(network: nn.Module) -> str:
    from torch import nn

    linear: list[str] = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the network has no linear layer: pass `taps`")
    return linear[-1]
