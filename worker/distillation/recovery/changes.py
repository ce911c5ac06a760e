"""Readings that differ from one in a single respect, and the search among them for one that is clearly better.

A network whose layers do not all have the same activation or pooling is read as one of a single kind first. Shapes: N images, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.recovery.chain import WEIGHTED, Layer
from worker.distillation.recovery.geometry import Geometry, poolings_of_same_size
from worker.distillation.recovery.reading import ACTIVATIONS, POOLINGS, Reading, next_weighted
from worker.distillation.recovery.recovered import Scored

GROUPS = (32, 16, 8, 4, 2, 0)
"""Groups of GroupNorms that are tried; 0 is one a channel."""
SCALES = tuple(2.0 ** (power / 2) for power in range(-6, 7))
"""What logits are multiplied by before their losses are compared, so that too sure a network is no worse for it."""
CLEARLY = 4.0
"""Standard errors by which the mean loss has to be lower: that of one of a hundred readings by chance is not."""
FEW, MANY = 64, 1024
"""Images on which all changes are tried, and the best few of them."""
KEPT = 6
MOST_CHANGES = 8
Score = Callable[[Reading, int], Scored]
"""How right a reading is on so many images."""


def refined(
    best: Scored, chain: Sequence[Layer], score: Score, has_time: Callable[[], bool], plain: Sequence[Geometry] = ()
) -> Scored:
    """The reading with one change after another, as long as one is clearly better; `score` knows the images, and `plain` are the
    plainest geometries."""
    for _ in range(MOST_CHANGES):
        few = []
        for reading in changed(best.reading, chain, plain):
            if not has_time():
                return best
            few.append(score(reading, FEW))
        few.sort(key=lambda each: float(each.losses.mean()))
        many = [score(each.reading, MANY) for each in few[:KEPT] if has_time()]
        before = score(best.reading, MANY)
        better = [each for each in many if lower_by(each.losses, before.losses) >= CLEARLY]
        if not better:
            return best
        best = min(better, key=lambda each: float(each.losses.mean()))
    return best


def changed(reading: Reading, chain: Sequence[Layer], plain: Sequence[Geometry] = ()) -> Iterator[Reading]:
    """Every reading that has another activation, everywhere or behind one layer, another pooling behind one convolution, another of
    the plain geometries, or other groups of its GroupNorms."""
    for name in ACTIVATIONS:
        if name != reading.activation:
            yield replace(reading, activation=name, activations=())
    places = [index for index, layer in enumerate(chain) if layer.kind in WEIGHTED and next_weighted(chain, index)]
    for number, index in enumerate(places):
        for name in ACTIVATIONS:
            if name != reading.activation_behind(chain, index) and len(places) > 1:
                own = {**dict(reading.activations), number: name}
                yield replace(reading, activations=tuple(sorted(own.items())))
    pooled = [number for number, each in enumerate(reading.geometry.placements) if each.pool]
    for number in pooled:
        for pooling in POOLINGS:
            if pooling != reading.pooling_behind(number):
                kinds = {**dict(reading.poolings), number: pooling}
                yield replace(reading, poolings=tuple(sorted(kinds.items())))
    alike = list(poolings_of_same_size(chain, reading.geometry))
    others = [*alike, *(each for each in plain if each not in alike and each != reading.geometry)]
    yield from (replace(reading, geometry=geometry) for geometry in others)
    if any(layer.kind == "group_norm" for layer in chain):
        yield from (replace(reading, groups=groups) for groups in (1, *GROUPS) if groups != reading.groups)


def lower_by(losses_N: Tensor, others_N: Tensor) -> float:
    """By how many standard errors the mean of losses is lower than that of others of the same images."""
    gains = (others_N - losses_N).double()
    error = float(gains.std()) / len(gains) ** 0.5
    return float(gains.mean()) / error if error > 0 else 0.0


def calibrated(logits_NK: Tensor, label_N: Tensor) -> Tensor:
    """The cross-entropy (N,) of each image in nats, with the logits scaled so that their mean is lowest."""
    found = [F.cross_entropy(logits_NK.double() * scale, label_N, reduction="none") for scale in SCALES]
    return found[int(torch.stack([losses.mean() for losses in found]).argmin())]
