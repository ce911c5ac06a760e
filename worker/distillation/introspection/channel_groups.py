"""Groups of channels that can only be removed together, and dimensions of tensors made of them."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Group:
    """Channels that are kept or removed together: those of a layer's output, and of all that is added to it.

    `whole`: none of them can be removed, such as those of the image and of the logits.
    """

    def __init__(self, size: int, whole: bool = False):
        self.size = size
        self.whole = whole
        self._same: Group = self

    @property
    def root(self) -> "Group":
        """The representative of all groups joined with this one."""
        return self if self._same is self else self._same.root

    def join(self, other: "Group") -> None:
        """Make this and another group one."""
        one, two = self.root, other.root
        one.whole = one.whole or two.whole
        two._same = one


Axis = tuple[tuple[Group, int], ...]
"""The channels along a dimension: concatenated groups, and how many times each of their channels is repeated in a row."""


def kept_together(one: Axis | None, other: Axis | None) -> Axis | None:
    """The channels along a dimension of a tensor that is used twice: those of both uses are kept or removed together."""
    if one is None or other is None or [(a.root.size, n) for a, n in one] != [(b.root.size, n) for b, n in other]:
        for group, _ in (*(one or ()), *(other or ())):
            group.root.whole = True
        return None
    for (mine, _), (theirs, _) in zip(one, other, strict=True):
        if mine.root is not theirs.root:
            mine.join(theirs)
    return one


def positions(axis: Axis, sizes: Mapping[Group, int], kept: Mapping[Group, Tensor]) -> Tensor:
    """Positions along an axis of the channels that stay; `sizes` are the numbers of channels before and `kept` the
    channels that stay, of every group."""
    found, start = [], 0
    for group, repeats in axis:
        channels = kept[group.root]
        within = torch.arange(repeats, device=channels.device)
        found.append(start + (channels[:, None] * repeats + within).flatten())
        start += sizes[group.root] * repeats
    return torch.cat(found)
