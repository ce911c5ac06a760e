"""Mutual learning: the members of a cohort teach each other."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class MutualLearning(Objective):
    """Kullback-Leibler divergence of a network's predictions from those of its peers in a cohort.

    Zhang, Xiang, Hospedales, Lu, "Deep mutual learning", arXiv:1706.00384: the mean over the peers of their divergences
    (`each`, DML), or one divergence from the peers' mean prediction (`average`, DML_e). No gradient flows to the peers,
    so the two differ by a constant and have the same gradient: they train alike, except for rounding. The authors' code
    (YingZhangDUT/Deep-Mutual-Learning) adds the divergences up instead: with K networks, use a weight of K - 1 for
    that. The paper's temperature is 1. Other temperatures, with the factor T² of knowledge distillation, and
    standardised logits are additions.
    """

    paper = "arXiv:1706.00384"
    needs = ObjectiveNeeds(teacher=False, peers=True)
    when = {("standardise", True): {"needs": ObjectiveNeeds(teacher=False, peers=True, minimum_classes=3)}}

    @dataclass(frozen=True)
    class Parameters:
        """The targets from the peers' predictions."""

        target: Annotated[
            Literal["each", "average"],
            "Target: each peer's own prediction (mean of the divergences), or the mean of the peers' predictions.",
        ] = "each"
        temperature: Annotated[
            float, Range(gt=0), "Temperature: divides the logits of all networks before the softmax."
        ] = 1.0
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            own, *peers = (self._softened(outputs.logits) for outputs in (step.student, *step.peers))
            return {"mutual": divergence(own, peers, self.settings.target) * self.settings.temperature**2}

    def _softened(self, logits_BK: Tensor) -> Tensor:
        logits_BK = single(logits_BK)
        if self.settings.standardise:
            logits_BK = standardise(logits_BK)
        return logits_BK / self.settings.temperature


def divergence(own_BK: Tensor, peers_BK: list[Tensor], target: Literal["each", "average"]) -> Tensor:
    """`mean_l KL(softmax(peer_l) || softmax(own))`, or `KL(mean_l softmax(peer_l) || softmax(own))`, mean over the batch."""
    log_p = F.log_softmax(own_BK, dim=1)
    q_LBK = torch.stack([F.softmax(peer, dim=1) for peer in peers_BK])
    if target == "average":
        return F.kl_div(log_p, q_LBK.mean(0), reduction="batchmean")
    return torch.stack([F.kl_div(log_p, q_BK, reduction="batchmean") for q_BK in q_LBK]).mean()
