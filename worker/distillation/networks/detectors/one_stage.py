"""Detectors of one stage from torchvision: RetinaNet, FCOS and SSD.

Shapes: B batch, A anchors, K classes of objects.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.networks.detectors.detector import Detector, PaddedImages, Target
from worker.distillation.precision import single
from worker.distillation.step import Outputs

LOSS = "loss/"
"""Prefix of the parts that hold the network's own losses."""


class OneStageDetector(Detector):
    """A network that predicts a class and a box at each anchor.

    `read` returns `logits` (B, A, K + 1), of which RetinaNet and FCOS never use the first, and the part `deltas` (B, A, 4). With
    targets also `loss/classification`, `loss/bbox_regression` and for FCOS `loss/bbox_ctrness` (B,): torchvision's losses, whose
    mean over the batch is the loss.
    """

    def __init__(self, model: nn.Module, classes: int, divisible: int, stages: tuple[str, ...] | None = None):
        super().__init__()
        kept: Any = model
        self.backbone, self.head = kept.backbone, kept.head
        self._whole = (kept,)  # in a tuple, so that its parameters do not count twice
        self.classes = classes
        self.most_detections = kept.detections_per_img
        self.divisible = divisible
        self.stage_candidates = stages

    @property
    def whole(self) -> Any:
        """torchvision's network, which matches, decodes and computes the losses."""
        return self._whole[0]

    def detected(self, images_BCHW: Tensor) -> list[dict[str, Tensor]]:
        from torchvision.models.detection.ssd import SSD

        images, features, given = self._run(images_BCHW)
        anchors = self.whole.anchor_generator(images, features)
        if isinstance(self.whole, SSD):
            found = self.whole.postprocess_detections(given, anchors, images.image_sizes)
        else:
            counts = self._counts(features, given["cls_logits"])
            split = {name: list(each.split(counts, dim=1)) for name, each in given.items()}
            by_level = [list(each.split(counts)) for each in anchors]
            found = self.whole.postprocess_detections(split, by_level, images.image_sizes)
        return list(found)

    def read(self, images_BCHW: Tensor, targets: Sequence[Target] | None, shared: Outputs | None = None) -> Outputs:
        images, features, given = self._run(images_BCHW)
        parts = {"deltas": given["bbox_regression"]}
        if targets is not None and shared is None and not images_BCHW.is_meta:
            losses = self._losses(images, features, given, [dict(target) for target in targets])
            parts |= {f"{LOSS}{name}": loss.expand(len(images_BCHW)) for name, loss in losses.items()}
        return Outputs(given["cls_logits"], parts=parts)

    def anchors(self, images_BCHW: Tensor) -> list[Tensor]:
        """The anchors (A, 4) of each image, in pixels."""
        images, features, _ = self._run(images_BCHW)
        return list(self.whole.anchor_generator(images, features))

    def _run(self, images_BCHW: Tensor) -> tuple[PaddedImages, list[Tensor], dict[str, Tensor]]:
        images = self.padded(images_BCHW)
        found = self.backbone(images.tensors)
        features = [found] if isinstance(found, Tensor) else list(OrderedDict(found).values())
        return images, features, {name: single(each) for name, each in self.head(features).items()}

    def _counts(self, features: Sequence[Tensor], logits_BAK: Tensor) -> list[int]:
        """The number of anchors at each level."""
        places = [each.shape[-2] * each.shape[-1] for each in features]
        each_place = logits_BAK.shape[1] // sum(places)
        return [each_place * count for count in places]

    def _losses(
        self,
        images: PaddedImages,
        features: list[Tensor],
        given: dict[str, Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        from torchvision.models.detection import FCOS, RetinaNet

        anchors = self.whole.anchor_generator(images, features)
        if isinstance(self.whole, FCOS):
            found = self.whole.compute_loss(targets, given, anchors, self._counts(features, given["cls_logits"]))
        elif isinstance(self.whole, RetinaNet):
            found = self.whole.compute_loss(targets, given, anchors)
        else:
            matched = [self._matched(target["boxes"], each) for target, each in zip(targets, anchors, strict=True)]
            found = self.whole.compute_loss(targets, given, anchors, matched)
        return dict(found)

    def _matched(self, boxes_M4: Tensor, anchors_A4: Tensor) -> Tensor:
        """For each anchor of SSD the number of its object (A,), -1 without one."""
        from torchvision.ops import box_iou

        if not len(boxes_M4):
            return torch.full((len(anchors_A4),), -1, dtype=torch.int64, device=anchors_A4.device)
        return self.whole.proposal_matcher(box_iou(boxes_M4, anchors_A4))
