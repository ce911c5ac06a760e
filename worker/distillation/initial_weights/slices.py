"""Initial weights from slices of a teacher: of every layer the channels of largest norm, and a little noise.

The recipe is ours. It takes networks of one topology, found by the names of their parameters: the student may be
narrower, and may lack blocks of the teacher.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.channel_groups import Axis, Followed, Group, follow

NOISE = 0.1
"""Of a weight's standard deviation."""
POINTER = "/student/initial_weights"


@dataclass(frozen=True)
class Fit:
    """How a student's parameters lie in its teacher's: `axes` by name, and how many channels the teacher's groups have."""

    axes: Mapping[str, tuple[Axis | None, ...]]
    teacher_sizes: Mapping[Group, int]

    def selected(self, axis: Axis, kept: Mapping[Group, Tensor]) -> Tensor:
        """Positions along the teacher's axis that the student keeps, where `kept` are those of every group."""
        found, start = [], 0
        for group, repeats in axis:
            within = torch.arange(repeats)
            found.append(start + (kept[group.root][:, None] * repeats + within).flatten())
            start += self.teacher_sizes[group.root] * repeats
        return torch.cat(found)


def fit(student: nn.Module, example: Tensor, teacher: Mapping[str, Tensor]) -> Fit:
    """Find where a student's channels lie in a teacher's state dict; both may be on the meta device.

    Raises:
        SpecError: the student is no slice of this teacher; it names the first layer that does not fit.
    """
    return fit_followed(follow(student, example), student.state_dict(), teacher)


def fit_followed(followed: Followed, state: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Fit:
    """The same for a student whose channels are known already; see `fit`."""
    axes = {name: followed.axes_of(name, tensor) for name, tensor in state.items()}
    sizes: dict[Group, int] = {}
    for name, along in axes.items():
        for axis, count in zip(along, teacher[name].shape if name in teacher else (), strict=False):
            if axis is not None and len(axis) == 1:
                ((group, repeats),) = axis
                sizes.setdefault(group.root, count // repeats)
    found = Fit(axes, sizes)
    for name, tensor in state.items():
        if name not in teacher:
            raise _misfit(name, "the teacher has no layer of this name")
        if tensor.ndim != teacher[name].ndim:
            raise _misfit(name, f"it has {tensor.ndim} dimensions and the teacher's {teacher[name].ndim}")
        for number, (axis, own, count) in enumerate(zip(axes[name], tensor.shape, teacher[name].shape, strict=True)):
            if axis is not None:
                _check_axis(name, axis, count, found)
            elif own != count:
                why = followed.why.get(name, "")
                raise _misfit(name, f"it has {own} along dimension {number} and the teacher's {count}{why}")
    return found


def given_teacher(teacher: nn.Module | None) -> nn.Module:
    """The teacher to take slices of.

    Raises:
        SpecError: the job has none.
    """
    if teacher is None:
        raise SpecError([Problem(POINTER, "says `teacher`, and the job has none")], "Say `random`.")
    return teacher


def _check_axis(name: str, axis: Axis, count: int, found: Fit) -> None:
    """See that channels which lie along an axis of the student's layer are a slice of the teacher's `count`."""
    known = all(group.root in found.teacher_sizes for group, _ in axis)
    expected = sum(found.teacher_sizes[group.root] * repeats for group, repeats in axis) if known else None
    if expected != count:
        words = f"the teacher has {count} channels there" + (f" where it should have {expected}" if known else "")
        raise _misfit(name, words)
    for group, _ in axis:
        size = found.teacher_sizes[group.root]
        if group.root.size > size:
            raise _misfit(name, f"it has {group.root.size} channels and the teacher's only {size}")
        if group.root.whole and group.root.size != size:
            raise _misfit(name, f"all {size} channels of the teacher's would be needed, not {group.root.size}")


def _misfit(parameter: str, words: str) -> SpecError:
    layer = parameter.rpartition(".")[0] or parameter
    message = f"the student is no slice of the teacher: its layer {layer!r} does not fit, since {words}"
    return SpecError([Problem(POINTER, message)], "Say `random`, or choose a narrower network of the teacher's family.")


@torch.no_grad()
def sliced(
    student: nn.Module, example: Tensor, teacher: Mapping[str, Tensor], noise: float = NOISE
) -> dict[str, Tensor]:
    """A state dict for the student, on the CPU, drawn from a teacher's.

    Kept are, of each group of channels that are added to one another, those whose weights in the teacher have the
    largest L2 norm, in the teacher's order. Weights are multiplied by the square root of the ratio of the channels that
    they read, so that sums keep their size, and get `noise` of so much of their standard deviation from torch's global
    generator; biases, scales and statistics are copied.

    Raises:
        SpecError: the student is no slice of this teacher.
    """
    found = fit(student, example, teacher)
    given = {name: tensor.detach().cpu() for name, tensor in teacher.items()}
    kept = _kept(found, given)
    state: dict[str, Tensor] = {}
    for name, own in student.state_dict().items():
        value = given[name]
        for dimension, axis in enumerate(found.axes[name]):
            if axis is not None:
                value = value.index_select(dimension, found.selected(axis, kept))
        if own.is_floating_point() and own.ndim > 1:
            value = value * math.sqrt(given[name].shape[1] / own.shape[1])
            value = value + noise * value.std(correction=min(1, value.numel() - 1)) * torch.randn(value.shape)
        state[name] = value.to(own.dtype)
    return state


def _kept(found: Fit, teacher: Mapping[str, Tensor]) -> dict[Group, Tensor]:
    """The teacher's channels of every group that the student has, in the teacher's order."""
    strength = {group: torch.zeros(size, dtype=torch.float64) for group, size in found.teacher_sizes.items()}
    for name, axes in found.axes.items():
        if len(axes) > 1 and axes[0] is not None and len(axes[0]) == 1 and axes[0][0][1] == 1:
            strength[axes[0][0][0].root] += teacher[name].double().flatten(1).square().sum(1)
    return {
        group: value.argsort(descending=True, stable=True)[: group.size].sort().values
        for group, value in strength.items()
    }
