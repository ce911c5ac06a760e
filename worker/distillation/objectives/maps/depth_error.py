"""The error of a predicted depth."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from worker.distillation.losses.maps import known_mean, scale_invariant, sized
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class DepthError(Objective):
    """Distance of the predicted depth from the dataset's, over the pixels whose depth is known, or from the teacher's, over all.

    `scale_invariant` is the error of Eigen, Puhrsch, Fergus, "Depth map prediction from a single image using a multi-scale deep
    network", arXiv:1406.2283, equation 4, with their balance of 0.5. Learning from the teacher's depth is regression, as in
    `logit_distance`.
    """

    paper = "arXiv:1406.2283"
    needs = ObjectiveNeeds(fields=("depth",), teacher=False, batch_global=True, tasks=("depth",))
    when = {("target", "teacher"): {"needs": ObjectiveNeeds(logits=True, tasks=("depth",))}}

    @dataclass(frozen=True)
    class Parameters:
        """The distance, and what it is taken from."""

        norm: Annotated[
            Literal["l1", "l2", "scale_invariant"],
            "Absolute or squared error in metres, or the scale-invariant error of logarithms.",
        ] = "l1"
        balance: Annotated[
            float,
            Range(ge=0, le=1),
            "Share of an error of scale that `scale_invariant` forgives: 1 forgives all of it.",
        ] = 0.5
        target: Annotated[Literal["label", "teacher"], "The depth to learn: the dataset's, or the teacher's."] = "label"

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            if self.settings.target == "teacher":
                target = single(step.need_teacher().logits)[:, 0]
                known = torch.ones_like(target, dtype=torch.bool)
            else:
                target = single(step.field("depth"))
                known = target > 0
            depth = sized(single(step.student.logits), tuple(target.shape[1:]))[:, 0]
            return {"depth_error": self._distance(depth, target, known)}

    def _distance(self, depth: Tensor, target: Tensor, known: Tensor) -> Tensor:
        p = self.settings
        if p.norm == "scale_invariant":
            return scale_invariant(depth, target, known, p.balance)
        difference = depth - target
        return known_mean(difference.abs() if p.norm == "l1" else difference.square(), known)
