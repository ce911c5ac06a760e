"""Strides, paddings and poolings under which a chain of convolutions meets its first linear layer.

Sizes are (height, width) of the maps. There are more than a few only for long chains; the plainest come first. Time and memory are
bounded by the number of steps: a chain that needs more has the geometries found so far, or none.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, islice
from typing import Literal, NamedTuple

from worker.distillation.recovery.chain import Layer

Size = tuple[int, int]
MOST_STEPS = 100_000
"""Partial geometries that are made in one search."""
EXPECTED = 0.4
"""What the change from one placement to the next is expected to cost, so that long chains are followed to their end."""
MOST_SIZES = 1_000
"""Sizes of maps that are followed behind one layer."""
POOLS: dict[tuple[int, int] | None, float] = {
    None: 0.3,
    (2, 2): 0.0,
    (3, 2): 1.5,
    (3, 3): 2.0,
    (4, 4): 2.0,
    (2, 1): 3.0,
}
"""Kernel and stride of a pooling, and how unusual it is."""
ALIKE: tuple[tuple[int, int] | tuple[int, int, int], ...] = ((2, 2), (3, 2), (3, 2, 1))
"""Poolings that halve maps, with kernel, stride and padding, of which several may give the same size."""
UNPADDED = 0.3
"""How unusual a convolution without padding is where the maps are pooled at the end."""
ADAPTIVE = 4.0
"""How unusual a pooling to a map of several pixels is."""


@dataclass(frozen=True)
class Placement:
    """How a convolution stands in the chain: its stride and padding, and the pooling after it."""

    stride: int
    padding: int
    pool: tuple[int, int] | tuple[int, int, int] | None
    """Kernel, stride and, perhaps, padding of the pooling."""


@dataclass(frozen=True)
class Geometry:
    """An input size, one placement for each convolution, and how the last map becomes a vector: as it is (`flatten`), or
    pooled to `pooled` rows and columns (`average` or `max`). Convolutions are counted from 0."""

    size: Size
    placements: tuple[Placement, ...]
    ending: Literal["flatten", "average", "max"] = "flatten"
    pooled: int = 1
    skips: tuple[int, ...] = ()
    """Convolutions whose input is added to the output of the next one."""

    @property
    def pools(self) -> bool:
        """Whether there is a pooling between layers, of which the kind has to be found."""
        return any(each.pool for each in self.placements)


def pairs(chain: Sequence[Layer]) -> tuple[int, ...]:
    """The first of every two convolutions after each other that keep the number of channels, so that their input can be added
    to their output."""
    convolutions = [layer for layer in chain if layer.kind == "conv"]
    found: list[int] = []
    for index in range(1, len(convolutions) - 1):
        both = convolutions[index : index + 2]
        free = not found or index > found[-1] + 1
        if free and all(each.inputs == each.outputs and each.kernel[0] % 2 and each.groups == 1 for each in both):
            found.append(index)
    return tuple(found)


def geometries(chain: Sequence[Layer], size: Size, skips: tuple[int, ...] = ()) -> Iterator[Geometry]:
    """All geometries for images of a size, the plainest first; those of `skips` and the next ones keep the size of maps."""
    convolutions, kernels, linear = _parts(chain, skips)
    rest = _rest(kernels, convolutions, linear, _reach(kernels, size))
    order = count()
    queue: list[tuple[float, int, _Partial]] = []
    if size in rest[0]:
        queue.append((rest[0][size], next(order), _Partial(0.0, size)))
    while queue and next(order) < MOST_STEPS:
        _, _, partial = heapq.heappop(queue)
        if partial.whole is not None:
            yield replace(partial.whole, skips=skips)
            continue
        for step in _steps(partial, kernels, convolutions, linear, size):
            left = 0.0 if step.whole else rest[len(step.placed)].get(step.at)
            if left is not None:
                heapq.heappush(queue, (step.cost + left, next(order), step))


def strangeness(chain: Sequence[Layer], size: Size) -> float:
    """How unusual the plainest geometry for images of a size is, beyond what is expected of each convolution; infinite if there is none."""
    convolutions, kernels, linear = _parts(chain, ())
    rest = _rest(kernels, convolutions, linear, _reach(kernels, size))
    return rest[0].get(size, math.inf) - EXPECTED * len(convolutions)


def _parts(chain: Sequence[Layer], skips: tuple[int, ...]) -> tuple[list[Layer], list["_Kernel"], Layer | None]:
    """The convolutions, their kernels, and the first linear layer."""
    convolutions = [layer for layer in chain if layer.kind == "conv"]
    kernels = [
        _Kernel(layer.kernel, index in skips or index - 1 in skips, "bias" not in layer.tensors)
        for index, layer in enumerate(convolutions)
    ]
    return convolutions, kernels, next((layer for layer in chain if layer.kind == "linear"), None)


def poolings_of_same_size(chain: Sequence[Layer], geometry: Geometry) -> Iterator[Geometry]:
    """The geometries with another of `ALIKE` behind one convolution that gives maps of the same size."""
    convolutions = [layer for layer in chain if layer.kind == "conv"]
    at: Size | None = geometry.size
    for number, (layer, placed) in enumerate(zip(convolutions, geometry.placements, strict=True)):
        mapped = _slid(at, layer.kernel, placed.stride, placed.padding) if at else None
        if mapped is None:
            return
        at = _pooled(mapped, placed.pool)
        for pool in ALIKE if placed.pool in ALIKE else ():
            if pool != placed.pool and _pooled(mapped, pool) == at:
                others = list(geometry.placements)
                others[number] = replace(placed, pool=pool)
                yield replace(geometry, placements=tuple(others))


def _pooled(mapped: Size, pool: tuple[int, ...] | None) -> Size | None:
    if pool is None:
        return mapped
    kernel, stride, *padding = pool
    return _slid(mapped, (kernel, kernel), stride, sum(padding))


class _Kernel(NamedTuple):
    """The sides of a convolution's kernel, whether the convolution keeps the size of maps, and whether strides are likelier than
    poolings, as in code that leaves out the bias before a norm."""

    sides: tuple[int, int]
    keeps: bool = False
    strides: bool = False


@dataclass(frozen=True)
class _Partial:
    """Placements of the first convolutions, how unusual they are, and the size of the maps behind them."""

    cost: float
    at: Size
    placed: tuple[Placement, ...] = ()
    whole: Geometry | None = None


def _steps(
    partial: _Partial, kernels: Sequence[_Kernel], convolutions: Sequence[Layer], linear: Layer | None, size: Size
) -> Iterator[_Partial]:
    """One placement more, or the end."""
    cost = partial.cost
    placed = partial.placed
    index = len(partial.placed)
    if index == len(convolutions):
        for ending in _endings(convolutions, linear, partial.at, size, placed):
            yield _Partial(cost + _unusual(ending), partial.at, placed, ending)
        return
    for placement, own, after in _placements(kernels[index], partial.at):
        changed = _changes(placed[-1], placement, convolutions[index - 1 : index + 1]) if placed else 0.0
        yield _Partial(cost + own + changed, after, (*placed, placement))


@lru_cache(maxsize=2_000)
def _placements(kernel: _Kernel, at: Size) -> tuple[tuple[Placement, float, Size], ...]:
    """Every placement of a kernel on maps of a size, how unusual it is, and the size after it."""
    if kernel.keeps:
        return ((Placement(1, max(kernel.sides) // 2, None), 0.0, at),)
    return tuple(_placed(kernel, at))


def _placed(given: _Kernel, at: Size) -> Iterator[tuple[Placement, float, Size]]:
    kernel = max(given.sides)
    same = kernel // 2
    paddings = {0: 0.0, same: 0.0} | {other: 3.0 for other in (1, 2, 3) if other not in (0, same) and other < kernel}
    twice, unpooled = (0.1, -0.3) if given.strides else (0.6, 0.0)
    strides = {1: 0.0} | ({2: twice} if kernel > 1 else {2: 2.0}) | ({kernel: 2.0} if kernel > 2 else {})
    if kernel > 7:  # as in AlexNet
        strides, paddings = strides | {4: 0.6}, paddings | {2: 0.5}
    for padding, unusual in paddings.items():
        for stride, strided in strides.items():
            mapped = _slid(at, given.sides, stride, padding)
            for pool, pooling in POOLS.items():
                after = mapped if pool is None or mapped is None else _slid(mapped, (pool[0], pool[0]), pool[1], 0)
                if after is not None:
                    pools = unpooled if pool is None else -unpooled
                    yield Placement(stride, padding, pool), unusual + strided + pooling + pools, after


def _slid(at: Size, kernel: tuple[int, int], stride: int, padding: int) -> Size | None:
    rows, columns = ((side + 2 * padding - width) // stride + 1 for side, width in zip(at, kernel, strict=True))
    return (rows, columns) if rows > 0 and columns > 0 else None


def _changes(before: Placement, after: Placement, layers: Sequence[Layer]) -> float:
    """How much two placements after each other differ in kind, and whether maps shrink where channels do not grow."""
    kinds = [
        0 if each.padding == 0 else 1 if each.padding == max(layer.kernel) // 2 else 2
        for each, layer in zip((before, after), layers, strict=True)
    ]
    shrinks = before.pool is not None or after.stride > 1
    pools = {each.pool for each in (before, after)} - {None}
    unlike = (before.stride != after.stride, len(pools) > 1, shrinks != (layers[1].outputs > layers[0].outputs))
    return 1.0 * (kinds[0] != kinds[1]) + 0.5 * sum(unlike)


def _reach(kernels: Sequence[_Kernel], size: Size) -> list[set[Size]]:
    """The sizes that can be there before each convolution, and after the last."""
    reach = [{size}]
    for kernel in kernels:
        after = {after for at in reach[-1] for _, _, after in _placements(kernel, at)}
        reach.append(set(islice(sorted(after), MOST_SIZES)))
    return reach


def _rest(
    kernels: Sequence[_Kernel], convolutions: Sequence[Layer], linear: Layer | None, reach: Sequence[set[Size]]
) -> list[dict[Size, float]]:
    """Those of them from which the end can be met, each with how unusual the plainest way to it is expected to be."""
    ends = {at: [_unusual(end) for end in _endings(convolutions, linear, at, at, ())] for at in reach[-1]}
    rest = [{at: min(costs) for at, costs in ends.items() if costs}]
    for kernel, before in zip(reversed(kernels), reversed(reach[:-1]), strict=True):
        least: dict[Size, float] = {}
        for at in before:
            ways = [EXPECTED + own + rest[-1][to] for _, own, to in _placements(kernel, at) if to in rest[-1]]
            if ways:
                least[at] = min(ways)
        rest.append(least)
    return rest[::-1]


def _unusual(ending: Geometry) -> float:
    """How unusual the end of the maps is: pooling to more than one pixel is, and the largest number of each map."""
    bare = 0.0 if ending.ending == "flatten" else UNPADDED * sum(each.padding == 0 for each in ending.placements)
    return ADAPTIVE * (ending.pooled > 1) + 0.5 * (ending.ending == "max") + bare


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
