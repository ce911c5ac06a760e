"""Initial weights by merging similar neurons, without data and without training.

Srinivas, Babu, "Data-free parameter pruning for deep neural networks", BMVC 2015, arXiv:1507.06149. Two neurons of a fully
connected layer with equal weights have equal outputs: one can be removed if its outgoing weights are added to the other's.
If no two are equal, the neurons whose removal changes the next layer least are removed first. Shapes: N neurons, D inputs,
M outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.initial_weights.slices import POINTER, Fit, fit, sliced
from worker.distillation.introspection.channel_groups import Group
from worker.distillation.process.heartbeat import pulse


def distances(weight_ND: Tensor) -> Tensor:
    """(N, N): squared distances between neurons; infinity on the diagonal.

    Computed with matrix products, because sums of differences take minutes for thousands of neurons. Distances of equal
    neurons are set to exactly 0, without rounding errors.
    """
    size = weight_ND.square().sum(1)
    found = (size[:, None] + size - 2 * weight_ND @ weight_ND.T).clamp_min(0)
    same = weight_ND.unique(dim=0, return_inverse=True)[1]
    found[same[:, None] == same] = 0
    return found.fill_diagonal_(torch.inf)


def merge(weight_ND: Tensor, out_MN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge neurons until `count` remain; returns their positions (sorted, int64) and the next layer's weights on them.

    `weight_ND` holds each neuron's weights and bias, `out_MN` the next layer's weights. Each step merges the pair with the
    smallest saliency: the cost of replacing neuron j by i is mean(a_j^2) ||w_i - w_j||^2.
    """
    out = out_MN.clone()
    distance = distances(weight_ND)
    remaining = torch.ones(len(weight_ND), dtype=torch.bool)
    apart, nearest = distance.min(0)
    weight = out.square().mean(0)
    for _ in range(len(weight_ND) - count):
        pulse()
        cost = (weight * apart).masked_fill(~remaining, torch.inf)
        candidates = (cost == cost.min()).nonzero().flatten()
        removed = int(candidates[nearest[candidates].argmin()])
        kept = int(nearest[removed])
        out[:, kept] += out[:, removed]
        weight[kept] = out[:, kept].square().mean()
        remaining[removed] = False
        distance[removed] = torch.inf
        affected = (nearest == removed).nonzero().flatten()
        apart[affected], nearest[affected] = distance[:, affected].min(0)
    return remaining.nonzero().flatten(), out[:, remaining]


@dataclass(frozen=True)
class Layer:
    """A fully connected layer whose neurons can be merged: the names of its weight and bias, and of its readers' weights."""

    weight: str
    bias: str | None
    readers: Sequence[str]


def merged(student: nn.Module, example: Tensor, teacher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for the student, on the CPU: the teacher's, with the neurons of its hidden fully connected layers merged
    to the student's widths. Other layers that are narrower are sliced, without noise.

    Raises:
        SpecError: the student is not a slice of this teacher, or no layer has neurons to merge.
    """
    found = fit(student, example, teacher)
    state = {name: tensor.detach().cpu() for name, tensor in teacher.items()}
    for group, layer in mergeable(found, state).items():
        weight = state[layer.weight].double()
        if layer.bias is not None:
            weight = torch.cat([weight, state[layer.bias].double()[:, None]], dim=1)
        kept, out = merge(weight, torch.cat([state[name].double() for name in layer.readers]), group.size)
        parts = out.split([len(state[name]) for name in layer.readers])
        state |= {name: part.to(state[name].dtype) for name, part in zip(layer.readers, parts, strict=True)}
        state |= {name: state[name][kept] for name in (layer.weight, layer.bias) if name is not None}
    return sliced(student, example, state, noise=0.0)


def mergeable(found: Fit, teacher: Mapping[str, Tensor]) -> dict[Group, Layer]:
    """The layers whose neurons can be merged and that are wider in the teacher, by their group of channels.

    Raises:
        SpecError: there is none.
    """
    layers = {}
    for group, size in found.teacher_sizes.items():
        reading = {
            name: [at for at, axis in enumerate(axes) if axis and any(each.root is group for each, _ in axis)]
            for name, axes in found.axes.items()
        }
        made = [name for name, at in reading.items() if at == [0]]
        readers = [name for name, at in reading.items() if at == [1]]
        weights = [name for name in made if teacher[name].ndim == 2]
        biases = [name for name in made if teacher[name].ndim == 1 and weights and name == _bias_of(weights[0])]
        plain = len(weights) == 1 and made == sorted([*weights, *biases], key=made.index) and bool(readers)
        dense = all(teacher[name].ndim == 2 and len(found.axes[name][1] or ()) == 1 for name in readers)
        if plain and dense and group.size < size and not group.whole:
            layers[group] = Layer(weights[0], biases[0] if biases else None, readers)
    if not layers:
        reason = "requires a hidden fully connected layer that is wider in the teacher, and there is none"
        raise SpecError([Problem(POINTER, f"`neuron_merging` {reason}")], "Use `teacher` or `random`.")
    return layers


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"
