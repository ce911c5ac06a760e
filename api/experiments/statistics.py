"""Means, spreads and paired differences of variants, as in docs/comparison.md."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev

from api.experiments.schemas import DifferenceBody

LEVEL = 0.95
T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""Quantile 0.975 of Student's t for 1 to 30 degrees of freedom."""


def t_quantile(degrees: int) -> float:
    """Quantile 0.975 of Student's t. Above 30 degrees of freedom, by the expansion of Cornish and Fisher (Abramowitz and
    Stegun, 26.7.5), whose error is then below 1e-5."""
    if degrees <= len(T_95):
        return T_95[degrees - 1]
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, start=1)))


def mean(values: Sequence[float]) -> float | None:
    """The mean; None without values."""
    return fmean(values) if values else None


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None for fewer than two values."""
    return stdev(values) if len(values) > 1 else None


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> DifferenceBody | None:
    """The mean difference over the seeds that both have, with half of its 95 % interval; None without a common seed."""
    differences = [value - theirs[seed] for seed, value in ours.items() if seed in theirs]
    if not differences:
        return None
    count = len(differences)
    half = t_quantile(count - 1) * stdev(differences) / math.sqrt(count) if count > 1 else None
    return DifferenceBody(mean=fmean(differences), half=half, n=count)
