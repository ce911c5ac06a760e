"""Depth: the distance of each pixel in metres.

Shapes: N samples, B batch, H height, W width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tracing import one_map
from worker.distillation.losses.maps import LEAST_DEPTH, sized
from worker.distillation.step import Outputs
from worker.distillation.task import FEWEST_JUDGED, Predict, Task, TeacherAssessment, answers
from worker.distillation.tasks.pictures import ramp

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

NEAR = 1.25
"""Ratio up to which a depth counts as right in `delta1`."""


class Depth(Task):
    """One positive number of metres for each pixel; 0 in a depth map is unknown and never read."""

    labels = "depth"
    field = "depth"
    output = "depth"
    least_outputs = 1
    ground_truth = {"name": "depth_error"}
    objective_defaults = (
        {"name": "depth_error", "weight": 0.5},
        {"name": "depth_error", "weight": 0.5, "target": "teacher"},
    )
    source_defaults = {"augmentation": "scale_crop_flip"}
    no_synthesis = "synthesised images are those in which a teacher recognises a class, and a depth is no class; use `substitute` with real images"
    main_metric = "absolute_relative_error"
    higher_is_better = False

    def check_output(self, output: Any, examples: int) -> str | None:
        if wrong := one_map(output, examples):
            return wrong
        return None if output.shape[1] == 1 else f"returns {output.shape[1]} numbers for each pixel, and a depth is one"

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        if "depth" not in images.fields:
            raise SpecError([Problem(pointer, "has no depth")], "Choose another dataset or task.")
        if not bool((images.fields["depth"] > 0).any()):
            raise SpecError([Problem(pointer, "has no pixel of known depth")], "Choose another dataset.")
        if outputs != 1:
            raise SpecError([Problem("/student/classes", f"must be 1 for the task depth, not {outputs}")])

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of depth, over all pixels of known depth.

        `absolute_relative_error` (|d - t| / t), `root_mean_squared_error` in metres and `delta1`, the share of pixels with
        max(d / t, t / d) below 1.25; with a teacher `teacher_distance`, the mean absolute difference from its depth in metres over all
        pixels. As in Eigen, Puhrsch, Fergus, arXiv:1406.2283, section 4.
        """
        sums = torch.zeros(4, dtype=torch.float64)
        apart, pixels = 0.0, 0
        for part, outputs, teacher in answers(network_fn, images, batch_size, teacher_fn):
            truth = images.fields["depth"][part]
            depth = _depth(outputs, truth)
            sums += _errors(depth[truth > 0], truth[truth > 0]).cpu()
            if teacher is not None:
                apart += float((depth - _depth(teacher, truth)).abs().double().sum())
                pixels += depth.numel()
        relative, squared, near, count = sums.tolist()
        metrics = {
            "absolute_relative_error": relative / count,
            "root_mean_squared_error": (squared / count) ** 0.5,
            "delta1": near / count,
        }
        return metrics | ({"teacher_distance": apart / pixels} if pixels else {})

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the absolute relative error; that of the median of all depths, which is the same everywhere, is chance level."""
        error = self.evaluate(teacher_fn, images, batch_size)["absolute_relative_error"]
        truth = images.fields["depth"]
        known = truth[truth > 0]
        by_chance = float(((known.median() - known).abs() / known).double().mean())
        words = f"absolute relative error {error:.3f} on {len(images)} images ({by_chance:.3f} by chance)"
        return TeacherAssessment(words, error >= by_chance)

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        """Judges the share of pixels of each image whose depth is right, as for `delta1`."""
        truth = fields["depth"]

        def judge(logits: Tensor, part: slice) -> Tensor:
            return _share_near(_depth(Outputs(logits), truth[part]), truth[part])

        def guessed(count: int) -> float:
            known = truth[:count][truth[:count] > 0]
            return float(_share_near(known.median().expand_as(truth[:count]), truth[:count]).nanmean())

        words = "is right within a factor of 1.25 on {score} of the pixels of {count} training images"
        return Judgement(judge, guessed, words, "on {score}", "delta1", FEWEST_JUDGED)

    def picture(self, image: Tensor, output: Outputs | None, truth: Mapping[str, Tensor]) -> Tensor:
        """Depth as colours, from the nearest to the farthest known depth of the image; black where it is unknown."""
        true = truth["depth"].float().cpu()
        known = true[true > 0]
        least, most = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        shown = true if output is None else _depth(output, true[None])[0].float().cpu()
        return ramp(shown, least, most)


def _depth(outputs: Outputs, truth_BHW: Tensor) -> Tensor:
    """The predicted depth (B, H, W) in the size of the true one."""
    return sized(outputs.logits, tuple(truth_BHW.shape[1:]))[:, 0]


def _share_near(depth_BHW: Tensor, truth_BHW: Tensor) -> Tensor:
    """The share of each image's known pixels with max(d / t, t / d) below 1.25 (B,); NaN without any."""
    depth, known = depth_BHW.double().clamp(min=LEAST_DEPTH), truth_BHW > 0
    truth = torch.where(known, truth_BHW, 1.0).double()
    near = (torch.maximum(depth / truth, truth / depth) < NEAR) & known
    return near.flatten(1).sum(1) / known.flatten(1).sum(1)


def _errors(depth_P: Tensor, truth_P: Tensor) -> Tensor:
    """Sums over pixels of the relative and the squared error and of near ones, and their number (4,)."""
    depth, truth = depth_P.double().clamp(min=LEAST_DEPTH), truth_P.double()
    near = torch.maximum(depth / truth, truth / depth) < NEAR
    return torch.stack(
        [
            ((depth - truth).abs() / truth).sum(),
            (depth - truth).square().sum(),
            near.double().sum(),
            truth.new_tensor(len(truth)),
        ]
    )
