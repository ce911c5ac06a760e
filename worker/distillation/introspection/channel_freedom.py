"""Which channels of a network can be removed: those that are followed through all functions that read them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from worker.distillation.introspection.channel_following import Followed
from worker.distillation.introspection.channel_groups import Axis, Group


class Freedom(Followed):
    """Also marks as whole the channels that a function reads whose result cannot be followed.

    `reads`: the functions that hold channels, with the number of channels that they hold.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        super().__init__(tensors)
        self.holding: dict[str, int] = {}
        self._multiples: list[tuple[Axis, int]] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(function, types, args, kwargs)
        made = result if isinstance(result, (tuple, list)) else (result,)
        if any(isinstance(each, Tensor) and self.along(each) is None for each in made):
            for each in _tensors_in((*args, *(kwargs or {}).values())):
                self._hold(each, getattr(function, "__name__", "").partition(".")[0])
        return result

    def _hold(self, read: Tensor, function: str) -> None:
        for group, _ in self.along(read) or ():
            if not group.root.whole:
                self.holding[function] = self.holding.get(function, 0) + group.root.size
            group.root.whole = True

    def _group_norm(self, result: Tensor, input: Tensor, num_groups: int, *rest: Any, **given: Any) -> None:
        """Groups of channels stay as many as they are; of one channel each, they become fewer."""
        if (axis := self.along(input)) is not None and num_groups != input.shape[1]:
            self._multiples.append((axis, num_groups))
        self._batch_norm(result, input, *rest, **given)

    def narrower(self, width: float) -> dict[Group, int]:
        """The number of channels of every group, by its root, in a network of `width` times the channels."""
        multiples: dict[Group, int] = {}
        for axis, number in self._multiples:
            for group, _ in axis:
                multiples[group.root] = math.lcm(multiples.get(group.root, 1), number)
        roots = {group.root for axes in self.axes.values() for axis in axes for group, _ in axis or ()}
        return {root: root.size if root.whole else _scaled(root.size, width, multiples.get(root, 1)) for root in roots}


def length(axis: Axis, sizes: Mapping[Group, int]) -> int:
    """The number of channels along an axis."""
    return sum(sizes[group.root] * repeats for group, repeats in axis)


def _scaled(size: int, width: float, multiple: int) -> int:
    """The multiple of a number that is nearest to a fraction of a size, at least one and at most the size."""
    return size if size % multiple else max(multiple, math.floor(size * width / multiple + 0.5) * multiple)


def _tensors_in(values: Any) -> list[Tensor]:
    found = [each for each in values if isinstance(each, Tensor)]
    return found + [each for value in values if isinstance(value, (tuple, list)) for each in _tensors_in(value)]
