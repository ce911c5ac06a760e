"""One reading of a chain: a geometry with activation, pooling and normalisation, as something that can be run.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.recovery.chain import Layer
from worker.distillation.recovery.geometry import Geometry, Placement

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "none": lambda x: x,
}
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

    def logits(self, chain: Sequence[Layer], image_NCHW: Tensor) -> Tensor:
        """The answers (N, K) to uint8 images of the geometry's size."""
        return self.run(chain, self.normalisation.apply(image_NCHW))

    def run(self, chain: Sequence[Layer], x_NCHW: Tensor) -> Tensor:
        """The answers (N, K) to normalised images."""
        x = x_NCHW
        placements = iter(self.geometry.placements)
        for index, layer in enumerate(chain):
            norms = self._norms_after(chain, index)
            if layer.kind in ("conv", "linear"):
                x, placement = self._weighted(x, layer, placements)
                last = not any(each.kind in ("conv", "linear") for each in chain[index + 1 :])
                x = self._between(x, norms, last)
                if placement is not None and placement.pool is not None:
                    x = self._pool(x, placement.pool)
                x = self._ended(x, chain, index)
            elif index == 0:
                x = _normed(x, layer)
        return x.flatten(1)

    def steps(self, chain: Sequence[Layer]) -> list[dict[str, Any]]:
        """The layers in order, as plain values that a user can read and correct."""
        found: list[dict[str, Any]] = []
        placements = iter(self.geometry.placements)
        for index, layer in enumerate(chain):
            if layer.kind == "conv":
                placement = next(placements)
                found.append(_convolution(layer, placement))
                found += self._steps_between(chain, index)
                if placement.pool is not None:
                    found.append({"layer": f"{self.pooling}_pool", "kernel": placement.pool[0], "stride": placement.pool[1]})
                if self._ends_maps(chain, index):
                    found += self._steps_of_ending()
            elif layer.kind == "linear":
                found += [] if index or self.geometry.placements else [{"layer": "flatten"}]
                found.append({"layer": "linear", "name": layer.name, "outputs": layer.outputs})
                found += self._steps_between(chain, index)
            elif index == 0:
                found.append({"layer": layer.kind, "name": layer.name})
        return found

    def _steps_between(self, chain: Sequence[Layer], index: int) -> list[dict[str, Any]]:
        norms = [{"layer": each.kind, "name": each.name} for each in self._norms_after(chain, index)]
        last = not any(each.kind in ("conv", "linear") for each in chain[index + 1 :])
        act = [] if last or self.activation == "none" else [{"layer": self.activation}]
        return [*act, *norms] if self.norm_last else [*norms, *act]

    def _steps_of_ending(self) -> list[dict[str, Any]]:
        flatten: dict[str, Any] = {"layer": "flatten"} | ({"channels": "last"} if self.channels_last else {})
        if self.geometry.ending == "flatten":
            return [flatten]
        return [{"layer": f"adaptive_{self.pooling}_pool", "size": self.geometry.pooled}, flatten]

    def _norms_after(self, chain: Sequence[Layer], index: int) -> list[Layer]:
        found = []
        for layer in chain[index + 1 :]:
            if layer.kind in ("conv", "linear"):
                break
            found.append(layer)
        return found

    def _weighted(self, x: Tensor, layer: Layer, placements: Any) -> tuple[Tensor, Placement | None]:
        bias = layer.tensors.get("bias")
        if layer.kind == "linear":
            return F.linear(x.flatten(1), layer.weight, bias), None
        placement: Placement = next(placements)
        y = F.conv2d(x, layer.weight, bias, placement.stride, placement.padding, groups=layer.groups)
        return y, placement

    def _between(self, x: Tensor, norms: Sequence[Layer], last: bool) -> Tensor:
        activate = ACTIVATIONS["none" if last else self.activation]
        if self.norm_last:
            x = activate(x)
        for norm in norms:
            x = _normed(x, norm)
        return x if self.norm_last else activate(x)

    def _pool(self, x: Tensor, pool: tuple[int, int]) -> Tensor:
        return F.max_pool2d(x, *pool) if self.pooling == "max" else F.avg_pool2d(x, *pool)

    def _ends_maps(self, chain: Sequence[Layer], index: int) -> bool:
        after = next((each for each in chain[index + 1 :] if each.kind in ("conv", "linear")), None)
        return chain[index].kind == "conv" and (after is None or after.kind == "linear")

    def _ended(self, x: Tensor, chain: Sequence[Layer], index: int) -> Tensor:
        """Maps as vectors, after the last convolution."""
        if not self._ends_maps(chain, index):
            return x
        if self.geometry.ending == "pooled":
            adaptive = F.adaptive_max_pool2d if self.pooling == "max" else F.adaptive_avg_pool2d
            x = adaptive(x, self.geometry.pooled)
        return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)


def _normed(x: Tensor, layer: Layer) -> Tensor:
    tensors = layer.tensors
    if layer.kind == "layer_norm":
        return F.layer_norm(x, (layer.outputs,), layer.weight, tensors.get("bias")) if x.ndim == 2 else _per_channel(x, layer)
    return F.batch_norm(x, tensors["running_mean"], tensors["running_var"], layer.weight, tensors.get("bias"))


def _per_channel(x: Tensor, layer: Layer) -> Tensor:
    """A norm over the channels of each pixel."""
    moved = F.layer_norm(x.movedim(1, -1), (layer.outputs,), layer.weight, layer.tensors.get("bias"))
    return moved.movedim(-1, 1)


def _convolution(layer: Layer, placement: Placement) -> dict[str, Any]:
    kernel = layer.kernel[0] if len(set(layer.kernel)) == 1 else list(layer.kernel)
    step: dict[str, Any] = {"layer": "conv", "name": layer.name, "outputs": layer.outputs, "kernel": kernel}
    step |= {"stride": placement.stride, "padding": placement.padding}
    return step | ({"groups": layer.groups} if layer.groups > 1 else {})
