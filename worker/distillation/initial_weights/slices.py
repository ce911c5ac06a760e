"""Initial weights by slicing a teacher: the channels of largest norm in every layer, plus a little noise.

This method has no paper. Student and teacher must have the same topology, recognised by parameter names: the student may be
narrower, and may lack blocks of the teacher.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.channel_following import Followed, follow
from worker.distillation.introspection.channel_groups import Axis, Group, positions

NOISE = 0.1
"""Standard deviation of the noise, as a share of the weight's standard deviation."""
POINTER = "/student/initial_weights"


@dataclass(frozen=True)
class Fit:
    """How a student's parameters map to its teacher's: `axes` by parameter, and the teacher's number of channels per group."""

    axes: Mapping[str, tuple[Axis | None, ...]]
    teacher_sizes: Mapping[Group, int]

    def selected(self, axis: Axis, kept: Mapping[Group, Tensor]) -> Tensor:
        """Positions along the teacher's axis that the student keeps; `kept` are the kept channels of every group."""
        return positions(axis, self.teacher_sizes, kept)


def fit(student: nn.Module, example: Tensor, teacher: Mapping[str, Tensor]) -> Fit:
    """Map a student's channels to those in a teacher's state dict; both may be on the meta device.

    Raises:
        SpecError: the student is not a slice of this teacher; the message names the first layer that does not fit.
    """
    return fit_followed(follow(student, example), student.state_dict(), teacher)


def fit_followed(followed: Followed, state: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Fit:
    """`fit` for a student whose channels have already been followed."""
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
            raise _misfit(name, f"it has {tensor.ndim} dimensions and the teacher's has {teacher[name].ndim}")
        for number, (axis, own, count) in enumerate(zip(axes[name], tensor.shape, teacher[name].shape, strict=True)):
            if axis is not None:
                _check_axis(name, axis, count, found)
            elif own != count:
                why = followed.why.get(name, "")
                raise _misfit(name, f"it has {own} along dimension {number} and the teacher's {count}{why}")
    return found


def given_teacher(teacher: nn.Module | None) -> nn.Module:
    """The teacher, for initial weights that are derived from it.

    Raises:
        SpecError: the job has none.
    """
    if teacher is None:
        raise SpecError([Problem(POINTER, "needs a teacher, and the job has none")], "Use `random`.")
    return teacher


def _check_axis(name: str, axis: Axis, count: int, found: Fit) -> None:
    """See that channels which lie along an axis of the student's layer are a slice of the teacher's `count`."""
    known = all(group.root in found.teacher_sizes for group, _ in axis)
    expected = sum(found.teacher_sizes[group.root] * repeats for group, repeats in axis) if known else None
    if expected != count:
        reason = f"the teacher has {count} channels there" + (f" instead of {expected}" if known else "")
        raise _misfit(name, reason)
    for group, _ in axis:
        size = found.teacher_sizes[group.root]
        if group.root.size > size:
            raise _misfit(name, f"it has {group.root.size} channels and the teacher's has only {size}")
        if group.root.whole and group.root.size != size:
            raise _misfit(name, f"it has {group.root.size} channels and must have all {size} of the teacher's")


def _misfit(parameter: str, reason: str) -> SpecError:
    layer = parameter.rpartition(".")[0] or parameter
    message = f"the student is not a slice of the teacher: its layer {layer!r} does not fit, because {reason}"
    return SpecError([Problem(POINTER, message)], "Use `random`, or choose a narrower network of the teacher's family.")


@torch.no_grad()
def sliced(
    student: nn.Module, example: Tensor, teacher: Mapping[str, Tensor], noise: float = NOISE
) -> dict[str, Tensor]:
    """A state dict for the student, on the CPU, sliced from a teacher's.

    Of each group of tied channels, those whose weights in the teacher have the largest L2 norm are kept, in the teacher's
    order. Weights are multiplied by the square root of the ratio of input channels, so that sums keep their scale, and get
    Gaussian noise of `noise` times their standard deviation, from torch's global generator. Biases, scales and statistics
    are copied.

    Raises:
        SpecError: the student is not a slice of this teacher.
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
    """The teacher's channels in every group that the student keeps, in the teacher's order."""
    strength = {group: torch.zeros(size, dtype=torch.float64) for group, size in found.teacher_sizes.items()}
    for name, axes in found.axes.items():
        if len(axes) > 1 and axes[0] is not None and len(axes[0]) == 1 and axes[0][0][1] == 1:
            strength[axes[0][0][0].root] += teacher[name].double().flatten(1).square().sum(1)
    return {
        group: value.argsort(descending=True, stable=True)[: group.size].sort().values
        for group, value in strength.items()
    }
