"""Neuron selectivity transfer: match the distributions of the channels' activation maps."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.features import FeatureObjective, same_size
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import DENSE_TASKS, EVERY_TASK

EPSILON = 1e-6
"""Minimum norm of a channel; ours."""


class NeuronSelectivityTransfer(FeatureObjective):
    """Squared maximum mean discrepancy between the networks' channels, each an L2-normalised map; channel counts may
    differ.

    Huang, Wang, "Like what you like: knowledge distill via neuron selectivity transfer", arXiv:1707.01219. The
    polynomial kernel of degree 2 without a constant, and a weight of 50, are those of the authors' code
    (TuSimple/neuron-selectivity-transfer). The Gaussian width, which is each sample's own mean squared distance, and
    the default pairs are ours and unverified.
    """

    paper = "arXiv:1707.01219"
    needs = ObjectiveNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))

    @dataclass(frozen=True)
    class Parameters:
        """The kernel, and the taps to compare."""

        kernel: Annotated[
            Literal["linear", "polynomial", "gaussian"],
            "Kernel: x.y, (x.y + constant)^degree, or exp(-|x - y|^2 / 2 sigma^2).",
        ] = "polynomial"
        degree: Annotated[int, Range(ge=1, le=8), "Exponent of the polynomial kernel."] = 2
        constant: Annotated[float, Range(ge=0), "Constant of the polynomial kernel."] = 0.0
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap. If null: paired by resolution.",
        ] = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.over_pairs(step, self.compare)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        with fp32(student.device):
            maps = same_size(single(student), single(teacher))
            s, t = (F.normalize(features.flatten(2), dim=2, eps=EPSILON) for features in maps)
            p = self.settings
            if p.kernel == "gaussian":
                return gaussian_discrepancy(s, t)
            return (
                polynomial_discrepancy(s, t, 1, 0.0)
                if p.kernel == "linear"
                else polynomial_discrepancy(s, t, p.degree, p.constant)
            )


def polynomial_discrepancy(s_BCN: Tensor, t_BDN: Tensor, degree: int, constant: float) -> Tensor:
    """Squared discrepancy of two sets of vectors under the kernel `(x.y + constant)^degree`, mean over the batch."""
    tt, ss, ts = ((_products(x, y) + constant) ** degree for x, y in ((t_BDN, t_BDN), (s_BCN, s_BCN), (t_BDN, s_BCN)))
    return tt.mean() + ss.mean() - 2 * ts.mean()


def gaussian_discrepancy(s_BCN: Tensor, t_BDN: Tensor) -> Tensor:
    """Squared discrepancy under a Gaussian kernel, mean over the batch.

    For each sample, the squared width is the mean squared distance between a teacher's and a student's vector; no
    gradient flows through it.
    """
    ts = _squared_distances(t_BDN, s_BCN)
    variance = ts.detach().mean((1, 2), keepdim=True).clamp_min(EPSILON)
    tt, ss = _squared_distances(t_BDN, t_BDN), _squared_distances(s_BCN, s_BCN)
    tt, ss, ts = ((-squares / (2 * variance)).exp() for squares in (tt, ss, ts))
    return tt.mean() + ss.mean() - 2 * ts.mean()


def _products(x_BCN: Tensor, y_BDN: Tensor) -> Tensor:
    return x_BCN @ y_BDN.mT


def _squared_distances(x_BCN: Tensor, y_BDN: Tensor) -> Tensor:
    squares = x_BCN.square().sum(2)[:, :, None] + y_BDN.square().sum(2)[:, None, :] - 2 * _products(x_BCN, y_BDN)
    return squares.clamp_min(0)
