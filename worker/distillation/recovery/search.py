"""Which reading of a chain labelled images prefer.

First every geometry in its commonest readings on a few images; then all readings of the best geometries; then the best of
those on more images, and again on more; at last single changes of the best (`changes.py`). Shapes: N images, C channels, H height, W width.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.comparison import LEAST_SIGMA, about_lowest, even, sigma
from worker.distillation.contract_check.normalisations import Normalisation, altered, declared, own, usual
from worker.distillation.data.images import fit
from worker.distillation.errors import UploadError
from worker.distillation.process.heartbeat import pulse
from worker.distillation.process.stopwatch import Stopwatch
from worker.distillation.recovery.chain import HINT, Layer
from worker.distillation.recovery.changes import CLEARLY, MANY, calibrated, lower_by, refined
from worker.distillation.recovery.geometry import Geometry, geometries, pairs, strangeness
from worker.distillation.recovery.layer_list import can_fold
from worker.distillation.recovery.prefixes import Prefixes
from worker.distillation.recovery.reading import ACTIVATIONS, POOLINGS, USUAL_ACTIVATIONS, Reading
from worker.distillation.recovery.recovered import Recovered, Scored

FEW, SOME = 32, 64
"""Images on which geometries are tried in their commonest readings, and the best of them in all readings."""
MORE, MOST = 512, 2048
ROUNDS = ((128, 256), (32, 1024), (8, MOST))
"""How many of the best readings are tried on how many images afterwards."""
SHARES = (0.33, 0.46, 0.6, 0.69, 0.76, 0.8)
"""Parts of the time after which the next round begins: geometries in their commonest readings, these under all
normalisations, all readings of the best geometries, and `ROUNDS`. The rest is for single changes of the best."""
SHARES_BEFORE_SUMS = (0.2, 0.25)
"""The first two of them for networks that may have residual sums, which are tried afterwards."""
MOST_GEOMETRIES = 400
AT_ONCE = 50
"""Geometries that are tried in all their commonest readings before the next ones."""
KEPT_GEOMETRIES, KEPT_READINGS = 24, 24
OTHER_SIZES = (28, 32, 64, 224, 48, 96, 100, 128, 150, 200, 227, 256)
"""Sizes that images are brought to where a network does not fit their own, or fits it in unusual ways only; usual sizes first."""
STRANGE, PLAINER = 1.0, 1.5
"""How unusual the plainest geometry of the images' own size may be, beyond what is expected of each convolution, before other sizes
are tried; and by how much another's has to be less unusual."""
MOST_SIZES, MOST_RESIZED = 4, 8
"""Sizes that are tried, and convolutions of networks for which others than the images' own are, where the network fits that."""
CONVINCING, FURTHER = 0.9, 60
PROMISING = 0.8
SURE = 0.97
"""From this accuracy on no residual sums are tried, and no single changes of other readings than the best."""
PLAINEST, MOST_PLAIN = 2, 16
"""Geometries of which the best reading is changed too if the best of all has another, since a mixture of activations is read worse
than an unusual geometry at first; and those that are tried as a change."""
NEAR = 0.35
"""Geometries whose best reading is worse than the best by more than this are given up."""
QUICK = ("relu", "tanh", "sigmoid")
LEAST_ABOVE_COMMONEST = 0.2
"""A reading counts only if its accuracy is so much above the share of the commonest class, or half of what is above that."""
SECONDS = 180.0
BATCH_NUMBERS = 2**25
"""Numbers of the largest maps of a batch, about."""


def recover(
    chain: Sequence[Layer],
    image_NCHW: Tensor,
    label_N: Tensor,
    seconds: float = SECONDS,
    declared: InputContract | None = None,
) -> Recovered:
    """The reading of a chain under which labelled uint8 images are named best.

    The images are drawn in an order that is always the same. Each round of the search ends when its part of `seconds` has
    passed by a `Stopwatch`, with what it has. With a `declared` contract, only its size and its normalisation are tried.

    Raises:
        UploadError: no geometry meets the first linear layer, or no reading is clearly better than a guess.
    """
    order = torch.randperm(len(image_NCHW), generator=torch.Generator().manual_seed(0))[:MOST]
    search = _Search(tuple(chain), image_NCHW[order], label_N[order], Stopwatch(), seconds, declared)
    found = search.run()
    if found.best.accuracy < least_accuracy(float(label_N.bincount().max()) / len(label_N)):
        words = (
            f"of {found.tried} networks that have these layers, the best names {found.best.accuracy:.1%} of the images"
        )
        raise UploadError(
            f"{words}: that is too few to recognise it. {listed(chain, (int(image_NCHW.shape[2]), int(image_NCHW.shape[3])))}",
            HINT,
        )
    return found


def least_accuracy(commonest: float) -> float:
    """The accuracy from which on a network is more than a guess, by the share of the commonest class."""
    return commonest + min(LEAST_ABOVE_COMMONEST, (1 - commonest) / 2)


def candidates(
    chain: Sequence[Layer], size: tuple[int, int], others: Sequence[int] = OTHER_SIZES, most: int = MOST_GEOMETRIES
) -> list[Geometry]:
    """The plainest geometries for images of a size, and for those of the other sizes that the chain fits in clearly plainer ways.

    The size with the plainest one comes first; sizes take turns.
    """
    pulse()
    own = strangeness(chain, size)
    long = sum(layer.kind == "conv" for layer in chain) > MOST_RESIZED
    tried = others if own == math.inf or (own > STRANGE and not long) else ()
    strange = {(side, side): strangeness(chain, (side, side)) for side in tried}
    plainer = [each for each, cost in strange.items() if cost < math.inf and cost <= own - PLAINER]
    sizes = sorted(plainer, key=lambda each: strange[each])[: MOST_SIZES - 1] + ([size] if own < math.inf else [])
    found = [list(islice(geometries(chain, each), max(1, most // len(sizes)))) for each in sizes]
    if not any(found):
        raise UploadError(
            f"no strides, paddings and poolings make the layers fit images of {size[0]} x {size[1]} pixels", HINT
        )
    turns = product(range(0, most, AT_ONCE), found)
    return [geometry for start, several in turns for geometry in several[start : start + AT_ONCE]]


def listed(chain: Sequence[Layer], size: tuple[int, int], most: int = 5, others: Sequence[int] = OTHER_SIZES) -> str:
    """The plainest candidates in words."""
    words = []
    for geometry in candidates(chain, size, others, most):
        placed = [f"stride {each.stride}, padding {each.padding}, pool {each.pool}" for each in geometry.placements]
        words.append(f"[{'; '.join(placed)}; {geometry.ending}]")
    return f"The plainest candidates: {' '.join(words)}"


@dataclass
class _Search:
    chain: tuple[Layer, ...]
    image: Tensor
    label: Tensor
    taken: Stopwatch
    seconds: float
    declared: InputContract | None = None
    sizes: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """The images by sizes that they were brought to."""

    def run(self) -> Recovered:
        given = self.declared
        if given is not None:
            found = candidates(self.chain, (given.height, given.width), others=())
        else:
            found = candidates(self.chain, (int(self.image.shape[2]), int(self.image.shape[3])))
        ways = [declared(given)] if given is not None else usual(self.image[:MORE])
        ways += altered(ways) if given is None and can_fold(self.chain) else []
        skips = pairs(self.chain)
        first = self._first(found, ways, SHARES[:2] if not skips else SHARES_BEFORE_SUMS)
        if (
            skips
            and first[0].accuracy < SURE
            and (sums := list(islice(geometries(self.chain, found[0].size, skips), MOST_GEOMETRIES)))
        ):
            first = sorted([*first, *self._first(sums, ways, SHARES[:2])], key=lambda each: each.rank, reverse=True)
            found = [*found, *sums]
        of_geometry: dict[Geometry, Scored] = {}
        for each in first:
            of_geometry.setdefault(each.reading.geometry, each)
        near = [each.reading for each in of_geometry.values() if each.accuracy >= first[0].accuracy - NEAR]
        best_of = near[:KEPT_GEOMETRIES]
        every = [(_unlike(reading, best), reading) for best in best_of for reading in self._every(best.geometry, ways)]
        every.sort(key=lambda pair: pair[0])
        last = self._best(
            [*(each.reading for each in first[:KEPT_READINGS]), *(reading for _, reading in every)], SOME, SHARES[2]
        )
        for share, (kept_readings, images) in zip(SHARES[3:], ROUNDS, strict=True):
            last = self._best([each.reading for each in last[:kept_readings]], images, share)
        plainest = [each for each in last if even(each.right, last[0].right)]
        usual_one = min(_unusual(each.reading) for each in plainest)
        same = [each for each in plainest if _unusual(each.reading) == usual_one]
        same.sort(key=lambda each: (each.reading.normalisation.is_wide, -each.accuracy))
        best = self._normalised(same[about_lowest([each.cross_entropy for each in same])], ways)
        plain = found[:PLAINEST]
        unsure = best.accuracy < SURE and best.reading.geometry not in plain
        others = [of_geometry[each].reading for each in plain if each in of_geometry] if unsure else []
        best = self._refined(best, others, found[:MOST_PLAIN], ways)
        ties = tuple(each for each in last if each is not best and sigma(each.right, best.right) < LEAST_SIGMA)
        return Recovered(best, ties, len(found))

    def _refined(
        self, best: Scored, others: Sequence[Reading], plain: Sequence[Geometry], ways: Sequence[Normalisation]
    ) -> Scored:
        """The best reading, or one of the others if that becomes clearly better, with changes that make it clearly better; the
        normalisation is chosen again after any."""
        known: dict[int, Prefixes] = defaultdict(Prefixes)

        def score(reading: Reading, images: int) -> Scored:
            return self._score(reading, images, known[images])

        found = score(best.reading, MANY)
        for number, reading in enumerate((best.reading, *others)):
            share = (self.seconds - self.taken.seconds) / (1 + len(others) - number)
            changed = refined(
                score(reading, MANY), self.chain, score, partial(self._is_before, self.taken.seconds + share)
            )
            if number == 0 or lower_by(changed.losses, found.losses) >= CLEARLY:
                found = changed
        return best if found.reading == best.reading else self._normalised(found, ways)

    def _is_before(self, seconds: float) -> bool:
        return self.taken.seconds < seconds

    def _normalised(self, best: Scored, ways: Sequence[Normalisation]) -> Scored:
        """The best reading with the plain normalisation whose cross-entropy is about the lowest, of those that are even with it.

        The rounds keep the most accurate readings, and accuracy hardly tells the scale of the pixels.
        """
        if not best.reading.normalisation.is_plain:
            return best
        plain = [replace(best.reading, normalisation=way) for way in ways if way.is_plain]
        scored = [self._score(reading, MOST, Prefixes()) for reading in plain]
        most = max(scored, key=lambda each: each.accuracy)
        even_ones = [each for each in scored if even(each.right, most.right)]
        even_ones.sort(key=lambda each: each.reading.normalisation.is_wide)
        return even_ones[about_lowest([each.cross_entropy for each in even_ones])]

    def _first(self, found: Sequence[Geometry], ways: Sequence[Normalisation], shares: Sequence[float]) -> list[Scored]:
        """The geometries in their commonest readings under the images' own normalisation, or the declared one; under all others
        too, if nothing does well. Either ends after its share of the time."""
        measured = own(self.image[:MORE])
        way = next((each for each in ways if each.same(measured)), ways[0])
        first = self._best(list(_quick(found, [way])), FEW, shares[0], stops_early=True)
        if first[0].accuracy >= PROMISING or self.declared is not None:
            return first
        plain = [each for each in ways if each.is_plain and each != way]
        others = [*plain, *altered([way])] if can_fold(self.chain) else plain
        more = self._best(list(_quick(found, others)), FEW, shares[1], stops_early=True)
        return sorted([*first, *more], key=lambda each: each.rank, reverse=True)

    def _fitted(self, size: tuple[int, int]) -> Tensor:
        """The images in a size that a geometry reads."""
        if size not in self.sizes:
            channels = self.image.shape[1]
            self.sizes[size] = fit(self.image, InputContract(channels, *size, (0.0,) * channels, (1.0,) * channels))
        return self.sizes[size]

    def _every(self, geometry: Geometry, ways: Sequence[Normalisation]) -> Iterator[Reading]:
        norms = any(layer.kind in ("batch_norm", "group_norm") for layer in self.chain)
        maps = bool(geometry.placements) and geometry.ending == "flatten"
        poolings = POOLINGS if geometry.pools else POOLINGS[:1]
        choices = product(ways, USUAL_ACTIVATIONS, poolings, (False, True) if norms else (False,))
        for way, activation, pooling, norm_last in choices:
            yield Reading(geometry, activation, pooling, way, norm_last)
            if geometry.skips and not norm_last:
                yield Reading(geometry, activation, pooling, way, sum_last=True)
        if maps:
            for way, activation, pooling in product(ways[:1], QUICK, poolings):
                yield Reading(geometry, activation, pooling, way, channels_last=True)

    def _best(self, readings: Sequence[Reading], images: int, share: float, stops_early: bool = False) -> list[Scored]:
        """The readings on so many images, the best first; after this share of the time no further one is begun.

        With `stops_early` nor after a convincing one was found, and as many again and some more were tried.
        """
        scored: list[Scored] = []
        known = Prefixes()
        enough: float = math.inf
        for reading in dict.fromkeys(readings):
            if scored and (self.taken.seconds > self.seconds * share or len(scored) > enough):
                break
            scored.append(self._score(reading, images, known))
            if stops_early and scored[-1].accuracy >= CONVINCING:
                enough = min(enough, 2 * len(scored) + FURTHER)
        return sorted(scored, key=lambda each: each.rank, reverse=True)

    @torch.no_grad()
    def _score(self, reading: Reading, images: int, known: Prefixes) -> Scored:
        image, label = self._fitted(reading.geometry.size)[:images], self.label[:images]
        rows = []
        maps = max((layer.outputs for layer in self.chain if layer.kind == "conv"), default=1)
        parts = image.split(max(1, BATCH_NUMBERS // (maps * image.shape[2] * image.shape[3])))
        for part in parts:
            pulse()
            rows.append(reading.logits(self.chain, part, known if len(parts) == 1 else None))
        logits = torch.cat(rows).nan_to_num(nan=-1e4, posinf=1e4, neginf=-1e4)
        loss = float(F.cross_entropy(logits.double(), label))
        return Scored(reading, logits.argmax(1) == label, loss, calibrated(logits, label))


def _unlike(reading: Reading, other: Reading) -> int:
    """In how much two readings of a geometry differ, beside a plain normalisation: what differs little is tried first."""
    parts = ("activation", "pooling", "norm_last", "channels_last", "sum_last")
    return sum(getattr(reading, part) != getattr(other, part) for part in parts) + (not reading.normalisation.is_plain)


def _unusual(reading: Reading) -> tuple[int, ...]:
    """Smaller for plainer readings."""
    activation, pooling = list(ACTIVATIONS).index(reading.activation), POOLINGS.index(reading.pooling)
    adaptive = reading.geometry.pooled > 1
    return bool(reading.geometry.skips), adaptive, reading.norm_last, reading.channels_last, activation, pooling


def _quick(found: Sequence[Geometry], ways: Sequence[Normalisation]) -> Iterator[Reading]:
    """The commonest readings, those of the plainest geometries first; what begins alike lies close together."""
    for start in range(0, len(found), AT_ONCE):
        for way, activation, pooling in product(ways, QUICK, POOLINGS):
            for geometry in found[start : start + AT_ONCE]:
                if geometry.pools or pooling == POOLINGS[0]:
                    yield Reading(geometry, activation, pooling, way)
                    if geometry.skips:
                        yield Reading(geometry, activation, pooling, way, sum_last=True)
