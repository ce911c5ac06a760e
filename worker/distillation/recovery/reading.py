"""One reading of a chain: a geometry with activation, pooling and normalisation, as something that can be run.

Shapes: N images, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.recovery.chain import WEIGHTED, Layer
from worker.distillation.recovery.geometry import Geometry, Placement
from worker.distillation.recovery.prefixes import Prefixes

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "none": lambda x: x,
    "silu": F.silu,
    "selu": F.selu,
    "leaky_relu_0.1": partial(F.leaky_relu, negative_slope=0.1),
    "leaky_relu_0.2": partial(F.leaky_relu, negative_slope=0.2),
}
USUAL_ACTIVATIONS = tuple(ACTIVATIONS)[:7]
"""Those that are tried with everything else; the others only in place of the best of these."""
POOLINGS = ("max", "avg")


@dataclass(frozen=True)
class Reading:
    """How the layers are joined, and what is made of the pixels before them."""

    geometry: Geometry
    activation: str
    pooling: str
    normalisation: Normalisation
    norm_last: bool = False
    """Whether a norm follows the activation instead of coming before it."""
    channels_last: bool = False
    """Whether maps are flattened with the channels last."""
    sum_last: bool = False
    """Whether the input of a pair of convolutions is added behind their last activation, instead of before it."""
    groups: int = 1
    """Groups of channels of every GroupNorm on maps, at most; 0 for one group a channel."""
    activations: tuple[tuple[int, str], ...] = ()
    """Layers with weights, by their numbers from 0, that another activation follows."""
    poolings: tuple[tuple[int, str], ...] = ()
    """Convolutions, by their numbers from 0, that a pooling of another kind follows."""

    def activation_behind(self, chain: Sequence[Layer], index: int) -> str:
        """The activation behind a layer with weights; `none` behind the last one, and where the chain has a PReLU."""
        if next_weighted(chain, index) is None or any(each.kind == "prelu" for each in norms_after(chain, index)):
            return "none"
        number = sum(each.kind in WEIGHTED for each in chain[:index])
        return dict(self.activations).get(number, self.activation)

    def pooling_behind(self, number: int) -> str:
        """The kind of the pooling behind a convolution."""
        return dict(self.poolings).get(number, self.pooling)

    def groups_of(self, layer: Layer, maps: bool = True) -> int:
        """The groups of a GroupNorm; vectors have one."""
        return math.gcd(self.groups, layer.outputs) if maps else 1

    def logits(self, chain: Sequence[Layer], image_NCHW: Tensor, known: Prefixes | None = None) -> Tensor:
        """The answers (N, K) to uint8 images of the geometry's size. `known` has maps of the same images and chain."""
        x, done = self._begun(image_NCHW, known)
        convolutions = 0
        skips, kept = self.geometry.skips, x
        for index, layer in enumerate(chain):
            if layer.kind == "conv":
                convolutions += 1
                if convolutions > done:
                    kept = x if convolutions - 1 in skips else kept
                    added = kept if convolutions - 2 in skips else None
                    x = self._convolved(x, chain, index, self.geometry.placements[convolutions - 1], added)
                    if known is not None and convolutions - 1 not in skips:
                        known.put(self._beginning(convolutions), x)
                if convolutions >= done:
                    x = self._ended(x, chain, index)
            elif layer.kind == "linear":
                x = F.linear(x.flatten(1), layer.weight, layer.tensors.get("bias"))
                x = self._between(x, chain, index)
            elif index == 0 and not done:
                x = self._normed(x, layer)
        return x.flatten(1)

    def _begun(self, image_NCHW: Tensor, known: Prefixes | None) -> tuple[Tensor, int]:
        """The maps behind as many convolutions as are known, and how many these are."""
        for done in range(len(self.geometry.placements) if known is not None else 0, 0, -1):
            if known is not None and (x := known.get(self._beginning(done))) is not None:
                return x, done
        return self.normalisation.apply(image_NCHW), 0

    def _beginning(self, count: int) -> Hashable:
        """Equal for readings that compute the same up to so many convolutions."""
        placed = self.geometry.placements[:count]
        pooling = self.pooling if any(each.pool for each in placed) else None
        skips = tuple(each for each in self.geometry.skips if each < count)
        own = tuple(each for each in (*self.activations, *self.poolings) if each[0] < count)
        return (
            self.geometry.size,
            self.normalisation,
            self.activation,
            self.norm_last,
            pooling,
            placed,
            skips,
            bool(skips) and self.sum_last,
            self.groups,
            own,
        )

    def _convolved(
        self, x: Tensor, chain: Sequence[Layer], index: int, placed: Placement, added: Tensor | None
    ) -> Tensor:
        layer = chain[index]
        bias = layer.tensors.get("bias")
        x = F.conv2d(x, layer.weight, bias, placed.stride, placed.padding, groups=layer.groups)
        if added is None:
            x = self._between(x, chain, index)
        elif self.sum_last:
            x = self._between(x, chain, index) + added
        else:
            x = self._between(x, chain, index, activated=False) + added
            x = ACTIVATIONS[self.activation_behind(chain, index)](x)
        if placed.pool is None:
            return x
        number = sum(each.kind == "conv" for each in chain[:index])
        return F.max_pool2d(x, *placed.pool) if self.pooling_behind(number) == "max" else F.avg_pool2d(x, *placed.pool)

    def _between(self, x: Tensor, chain: Sequence[Layer], index: int, activated: bool = True) -> Tensor:
        activate = ACTIVATIONS[self.activation_behind(chain, index) if activated else "none"]
        if self.norm_last:
            x = activate(x)
        for norm in norms_after(chain, index):
            x = self._normed(x, norm)
        return x if self.norm_last else activate(x)

    def _normed(self, x: Tensor, layer: Layer) -> Tensor:
        tensors = layer.tensors
        if layer.kind == "prelu":
            return F.prelu(x, layer.weight)
        if layer.kind == "group_norm":
            return F.group_norm(x, self.groups_of(layer, x.ndim > 2), layer.weight, tensors.get("bias"))
        return F.batch_norm(x, tensors["running_mean"], tensors["running_var"], layer.weight, tensors.get("bias"))

    def _ended(self, x: Tensor, chain: Sequence[Layer], index: int) -> Tensor:
        """Maps as vectors, after the last convolution."""
        if not ends_maps(chain, index):
            return x
        if self.geometry.ending != "flatten":
            adaptive = F.adaptive_max_pool2d if self.geometry.ending == "max" else F.adaptive_avg_pool2d
            x = adaptive(x, self.geometry.pooled)
        return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)


def norms_after(chain: Sequence[Layer], index: int) -> list[Layer]:
    """The norms and PReLUs between a convolution or linear layer and the next."""
    found = []
    for layer in chain[index + 1 :]:
        if layer.kind in WEIGHTED:
            break
        found.append(layer)
    return found


def next_weighted(chain: Sequence[Layer], index: int) -> Layer | None:
    """The next convolution or linear layer."""
    return next((each for each in chain[index + 1 :] if each.kind in WEIGHTED), None)


def ends_maps(chain: Sequence[Layer], index: int) -> bool:
    """Whether a layer is the last convolution."""
    after = next_weighted(chain, index)
    return chain[index].kind == "conv" and (after is None or after.kind == "linear")
