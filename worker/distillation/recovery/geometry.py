"""Strides, paddings and poolings under which a chain of convolutions meets its first linear layer.

Sizes are (height, width) of the maps. There are more than a few only for long chains; the plainest come first.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from worker.distillation.recovery.chain import Layer

Size = tuple[int, int]
MOST_STEPS = 300_000
POOLS: dict[tuple[int, int] | None, float] = {
    None: 0.3,
    (2, 2): 0.0,
    (3, 2): 1.5,
    (3, 3): 2.0,
    (4, 4): 2.0,
    (2, 1): 3.0,
}
"""Kernel and stride of a pooling, and how unusual it is."""
ADAPTIVE = 4.0
"""How unusual a pooling to a map of several pixels is."""


@dataclass(frozen=True)
class Placement:
    """How a convolution stands in the chain: its stride and padding, and the pooling after it."""

    stride: int
    padding: int
    pool: tuple[int, int] | None


@dataclass(frozen=True)
class Geometry:
    """An input size, one placement for each convolution, and how the last map becomes a vector: as it is (`flatten`), or
    pooled to `pooled` rows and columns (`average` or `max`)."""

    size: Size
    placements: tuple[Placement, ...]
    ending: Literal["flatten", "average", "max"] = "flatten"
    pooled: int = 1

    @property
    def pools(self) -> bool:
        """Whether there is a pooling between layers, of which the kind has to be found."""
        return any(each.pool for each in self.placements)


def geometries(chain: Sequence[Layer], size: Size) -> Iterator[Geometry]:
    """All geometries for images of a size, the plainest first."""
    convolutions = [layer for layer in chain if layer.kind == "conv"]
    linear = next((layer for layer in chain if layer.kind == "linear"), None)
    reach = _reach(convolutions, size)
    useful = _useful(convolutions, linear, reach)
    order = count()
    queue: list[tuple[float, int, Size, tuple[Placement, ...], Geometry | None]] = [(0.0, next(order), size, (), None)]
    for _ in range(MOST_STEPS):
        if not queue:
            return
        cost, _, at, placed, whole = heapq.heappop(queue)
        if whole is not None:
            yield whole
            continue
        if len(placed) == len(convolutions):
            for ending in _endings(convolutions, linear, at, size, placed):
                heapq.heappush(queue, (cost + _unusual(ending), next(order), at, placed, ending))
            continue
        for placement, own, after in _placements(convolutions[len(placed)], at):
            if after in useful[len(placed) + 1]:
                changed = (
                    _changes(placed[-1], placement, convolutions[len(placed) - 1 : len(placed) + 1]) if placed else 0.0
                )
                heapq.heappush(queue, (cost + own + changed, next(order), after, (*placed, placement), None))


def _placements(layer: Layer, at: Size) -> Iterator[tuple[Placement, float, Size]]:
    """Every placement of a convolution on maps of a size, how unusual it is, and the size after it."""
    kernel = max(layer.kernel)
    same = kernel // 2
    paddings = {0: 0.0, same: 0.0} | {other: 3.0 for other in (1, 2, 3) if other not in (0, same) and other < kernel}
    strides = {1: 0.0} | ({2: 1.0} if kernel > 1 else {2: 2.0}) | ({kernel: 2.0} if kernel > 2 else {})
    for padding, unusual in paddings.items():
        for stride, strided in strides.items():
            mapped = _slid(at, layer.kernel, stride, padding)
            for pool, pooling in POOLS.items():
                after = mapped if pool is None or mapped is None else _slid(mapped, (pool[0], pool[0]), pool[1], 0)
                if after is not None:
                    yield Placement(stride, padding, pool), unusual + strided + pooling, after


def _slid(at: Size, kernel: tuple[int, int], stride: int, padding: int) -> Size | None:
    rows, columns = ((side + 2 * padding - width) // stride + 1 for side, width in zip(at, kernel, strict=True))
    return (rows, columns) if rows > 0 and columns > 0 else None


def _changes(before: Placement, after: Placement, layers: Sequence[Layer]) -> float:
    """How much two placements after each other differ in kind."""
    kinds = [
        0 if each.padding == 0 else 1 if each.padding == max(layer.kernel) // 2 else 2
        for each, layer in zip((before, after), layers, strict=True)
    ]
    return 1.0 * (kinds[0] != kinds[1]) + 0.5 * (before.pool != after.pool) + 0.5 * (before.stride != after.stride)


def _reach(convolutions: Sequence[Layer], size: Size) -> list[set[Size]]:
    """The sizes that can be there before each convolution, and after the last."""
    reach = [{size}]
    for layer in convolutions:
        reach.append({after for at in reach[-1] for _, _, after in _placements(layer, at)})
    return reach


def _useful(convolutions: Sequence[Layer], linear: Layer | None, reach: Sequence[set[Size]]) -> list[set[Size]]:
    """Those of them from which the end can be met."""
    useful = [{at for at in reach[-1] if any(_endings(convolutions, linear, at, at, ()))}]
    for layer, before in zip(reversed(convolutions), reversed(reach[:-1]), strict=True):
        useful.append({at for at in before if any(after in useful[-1] for _, _, after in _placements(layer, at))})
    return useful[::-1]


def _unusual(ending: Geometry) -> float:
    """How unusual the end of the maps is: pooling to more than one pixel is, and the largest number of each map."""
    return ADAPTIVE * (ending.pooled > 1) + 0.5 * (ending.ending == "max")


def _endings(
    convolutions: Sequence[Layer], linear: Layer | None, at: Size, size: Size, placed: tuple[Placement, ...]
) -> Iterator[Geometry]:
    channels = convolutions[-1].outputs if convolutions else None
    pixels = at[0] * at[1]
    if linear is None:
        endings: tuple[Literal["flatten", "average", "max"], ...] = ("flatten",) if pixels == 1 else ("average", "max")
        yield from (Geometry(size, placed, ending) for ending in endings)
    elif channels is None:
        if linear.inputs % pixels == 0:
            yield Geometry(size, placed)
    elif linear.inputs == channels * pixels:
        yield Geometry(size, placed)
    else:
        share = linear.inputs // channels
        side = round(share**0.5)
        if side * side == share and side < min(at):
            yield Geometry(size, placed, "average", side)
            yield Geometry(size, placed, "max", side)
