"""Networks with fewer channels: which channels go together, which of them stay, and modules of the new sizes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.introspection.channel_following import follow
from worker.distillation.introspection.channel_freedom import Freedom, length
from worker.distillation.introspection.channel_groups import Group, positions

Shapes = dict[str, list[int]]
"""The new shapes of parameters and buffers by name."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class CannotNarrow(Exception):
    """A network whose channels cannot be removed; the message is a clause that says why."""


def narrower_shapes(network: nn.Module, example: Tensor, keep: float) -> Shapes:
    """The shapes with `keep` times the channels, of parameters and buffers that change; channels that are added to each other stay
    as many as each other, and those of image and logits stay."""
    watch = follow(network, example, Freedom)
    sizes = watch.narrower(keep)
    shapes: Shapes = {}
    for name, tensor in network.state_dict().items():
        axes = watch.axes_of(name, tensor)
        shape = [own if axis is None else length(axis, sizes) for own, axis in zip(tensor.shape, axes, strict=True)]
        if shape != list(tensor.shape):
            shapes[name] = shape
    return shapes


@torch.no_grad()
def kept_values(network: nn.Module, example: Tensor, keep: float) -> dict[str, Tensor]:
    """The state dict of the narrower network: of each group of channels those whose weights have the largest L2 norm, in their order
    (Li et al., "Pruning filters for efficient convnets", arXiv:1608.08710, there with the L1 norm)."""
    watch = follow(network, example, Freedom)
    sizes = watch.narrower(keep)
    whole = {root: root.size for root in sizes}
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    strength = {root: torch.zeros(size, dtype=torch.float64) for root, size in whole.items()}
    for name, tensor in state.items():
        first = watch.axes_of(name, tensor)[0] if tensor.ndim > 1 else None
        if first is not None and len(first) == 1 and first[0][1] == 1:
            strength[first[0][0].root] += tensor.double().flatten(1).square().sum(1).cpu()
    kept: dict[Group, Tensor] = {
        root: value.argsort(descending=True, stable=True)[: sizes[root]].sort().values
        for root, value in strength.items()
    }
    for name, tensor in state.items():
        for dimension, axis in enumerate(watch.axes_of(name, tensor)):
            if axis is not None:
                chosen = positions(axis, {group: group.root.size for group, _ in axis} | whole, kept)
                tensor = tensor.index_select(dimension, chosen.to(tensor.device))
        state[name] = tensor
    return state


def narrow(network: nn.Module, shapes: Mapping[str, list[int]]) -> None:
    """Give parameters and buffers their new shapes, in place, and modules the sizes that go with them.

    Raises:
        CannotNarrow: a module with such a parameter is none of torch's convolutions, linear layers or normalisations.
    """
    changed: dict[str, dict[str, list[int]]] = {}
    for name, shape in shapes.items():
        path, _, own = name.rpartition(".")
        changed.setdefault(path, {})[own] = shape
    for path, tensors in changed.items():
        module = network.get_submodule(path)
        _resize(path, module, tensors)
        for name, shape in tensors.items():
            old = getattr(module, name)
            new = torch.ones(shape, dtype=old.dtype, device=old.device)
            if isinstance(old, nn.Parameter):
                module.register_parameter(name, nn.Parameter(new, old.requires_grad))
            else:
                module.register_buffer(name, new)


def _resize(path: str, module: Any, shapes: Mapping[str, list[int]]) -> None:
    """Set the sizes of a module whose tensors get these shapes."""
    if isinstance(module, CONVOLUTIONS) and "weight" in shapes:
        out, into = shapes["weight"][:2]
        depthwise = module.groups > 1 and module.groups == module.in_channels
        module.groups = out // (module.out_channels // module.in_channels) if depthwise else module.groups
        module.out_channels, module.in_channels = out, into * module.groups
    elif isinstance(module, nn.Linear) and "weight" in shapes:
        module.out_features, module.in_features = shapes["weight"]
    elif isinstance(module, NORMS):
        module.num_features = next(shape[0] for shape in shapes.values() if shape)
    elif isinstance(module, nn.GroupNorm):
        channels = next(shape[0] for shape in shapes.values())
        module.num_groups = channels if module.num_groups == module.num_channels else module.num_groups
        module.num_channels = channels
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(next(iter(shapes.values())))
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shapes["weight"][0]
    else:
        raise CannotNarrow(
            f"{path or 'it'} is a {type(module).__name__}, of which it is not known how to change the size"
        )
