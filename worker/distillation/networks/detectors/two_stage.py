"""Detectors of two stages: Faster R-CNN, from torchvision's parts.

Ren et al., "Faster R-CNN: towards real-time object detection with region proposal networks", arXiv:1506.01497. Matching,
sampling, decoding and the keys of the state dict are torchvision's, so that its weights fit and its losses come out.

Shapes: B batch, A anchors, R regions of an image, K classes of objects, C channels, S side of a region's map.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.networks.detectors.detector import Detector, PaddedImages, Target, padded_rows
from worker.distillation.precision import single
from worker.distillation.step import Outputs

DRAWN = ("rois", "roi_valid", "roi_label", "roi_target", "anchor_sample", "anchor_target")
"""The parts that the student draws, and that a teacher takes from it."""


class TwoStageDetector(Detector):
    """A region proposal network (RPN), and a head for each region (RoI).

    `read` returns `logits` (B, R, K + 1), with the background first, and the parts
    `objectness` (B, A), `anchor_deltas` (B, A, 4): the RPN's outputs;
    `rois` (B, R, 4), `roi_valid` (B, R) bool, `roi_features` (B, R, C, S, S), `roi_deltas` (B, R, K + 1, 4): the regions, and the
    head's input and offsets. With targets also `anchor_sample` (B, A) int8 (1: sampled with an object, 0: sampled without, -1:
    not sampled), `anchor_target` (B, A, 4), `roi_label` (B, R) int64 (0: background, -1: padding) and `roi_target` (B, R, 4),
    offsets in the units of torchvision's coders: weights 1, 1, 1, 1 for anchors, and 10, 10, 5, 5 for regions.
    """

    def __init__(self, model: Any, divisible: int, stages: tuple[str, ...] | None = None):
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = model.backbone, model.rpn, model.roi_heads
        self.classes = self.roi_heads.box_predictor.cls_score.out_features - 1
        self.most_detections = self.roi_heads.detections_per_img
        self.regions: int = self.roi_heads.fg_bg_sampler.batch_size_per_image
        self.divisible = divisible
        self.stage_candidates = stages

    def detected(self, images_BCHW: Tensor) -> list[dict[str, Tensor]]:
        images = self.padded(images_BCHW)
        features = self._features(images)
        proposals, *_ = self._proposed(images, features)
        _, logits, deltas = self._classified(images, features, proposals)
        boxes, scores, labels = self.roi_heads.postprocess_detections(logits, deltas, proposals, images.image_sizes)
        return [
            {"boxes": each, "scores": score, "labels": label}
            for each, score, label in zip(boxes, scores, labels, strict=True)
        ]

    def read(self, images_BCHW: Tensor, targets: Sequence[Target] | None, shared: Outputs | None = None) -> Outputs:
        images = self.padded(images_BCHW)
        features = self._features(images)
        if images_BCHW.is_meta:
            drawn = shared.parts.get("rois") if shared is not None else None
            return self._meta(images, features, self.regions if drawn is None else drawn.shape[1])
        if shared is None or "rois" not in shared.parts:  # a student of one stage draws no regions
            proposals, anchors, parts = self._proposed(images, features)
            parts |= self._drawn(proposals, anchors, targets)
        else:
            parts = self._heads(features)[0]
            parts |= {name: shared.parts[name] for name in DRAWN if name in shared.parts}
        return self._regions(images, features, parts)

    def _features(self, images: PaddedImages) -> OrderedDict[str, Tensor]:
        found = self.backbone(images.tensors)
        return OrderedDict([("0", found)]) if isinstance(found, Tensor) else found

    def _heads(self, features: OrderedDict[str, Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """The RPN's outputs, and the number of anchors at each level."""
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        objectness, deltas = self.rpn.head(list(features.values()))
        counts = [each[0].numel() for each in objectness]
        flat, flat_deltas = concat_box_prediction_layers(objectness, deltas)
        batch = len(objectness[0])
        parts = {"objectness": flat.view(batch, -1), "anchor_deltas": flat_deltas.view(batch, -1, 4)}
        return {name: single(each) for name, each in parts.items()}, counts

    def _proposed(
        self, images: PaddedImages, features: OrderedDict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """Proposals (n, 4) and anchors (A, 4) of each image, and the RPN's outputs."""
        parts, counts = self._heads(features)
        anchors = self.rpn.anchor_generator(images, list(features.values()))
        batch = len(anchors)
        with torch.no_grad():
            decoded = self.rpn.box_coder.decode(parts["anchor_deltas"].detach().flatten(0, 1), anchors)
            proposals, _ = self.rpn.filter_proposals(
                decoded.view(batch, -1, 4), parts["objectness"], images.image_sizes, counts
            )
        return proposals, anchors, parts

    @torch.no_grad()
    def _drawn(
        self, proposals: list[Tensor], anchors: list[Tensor], targets: Sequence[Target] | None
    ) -> dict[str, Tensor]:
        """What the losses are computed on: first the sample of anchors is drawn, then that of regions, as in torchvision. The
        draws of an image depend on its `seed` alone, if its target has one."""
        if targets is None:
            rois = [each[: self.regions] for each in proposals]
            return self._padded_rois(rois)
        given = [dict(target) for target in targets]
        labels, matched = self.rpn.assign_targets_to_anchors(anchors, given)
        sampled = []
        for each, target in zip(labels, given, strict=True):
            with _random_numbers_of(target, 0):
                sampled.append([torch.stack(one).bool() for one in self.rpn.fg_bg_sampler([each])])
        positive, negative = (torch.cat(each) for each in zip(*sampled, strict=True))
        offsets = torch.stack(list(self.rpn.box_coder.encode(matched, anchors)))
        sample = positive.to(torch.int8) - (~(positive | negative)).to(torch.int8)
        regions = []
        for each, target in zip(proposals, given, strict=True):
            with _random_numbers_of(target, 1):
                rois, _, roi_labels, roi_targets = self.roi_heads.select_training_samples([each], [target])
                regions.append((rois[0], roi_labels[0], roi_targets[0]))
        rois, roi_labels, roi_targets = map(list, zip(*regions, strict=True))
        return {
            "anchor_sample": sample,
            "anchor_target": torch.where(positive[..., None], offsets, torch.zeros_like(offsets)),
            "roi_label": padded_rows(roi_labels, self.regions, -1),
            "roi_target": padded_rows(
                [
                    torch.where(label[:, None] > 0, each, torch.zeros_like(each))
                    for label, each in zip(roi_labels, roi_targets, strict=True)
                ],
                self.regions,
            ),
            **self._padded_rois(rois),
        }

    def _padded_rois(self, rois: Sequence[Tensor]) -> dict[str, Tensor]:
        valid = [torch.ones(len(each), dtype=torch.bool, device=each.device) for each in rois]
        return {"rois": padded_rows(rois, self.regions), "roi_valid": padded_rows(valid, self.regions, False)}

    def _regions(self, images: PaddedImages, features: OrderedDict[str, Tensor], parts: dict[str, Tensor]) -> Outputs:
        """The head's outputs for the regions in `parts`, padded."""
        valid_BR = parts["roi_valid"]
        rois = [each[valid] for each, valid in zip(parts["rois"], valid_BR, strict=True)]
        pooled, logits, deltas = self._classified(images, features, rois)
        named = {"roi_features": pooled, "roi_deltas": deltas.unflatten(1, (-1, 4))}
        parts |= {name: _scattered(each, valid_BR) for name, each in named.items()}
        return Outputs(_scattered(logits, valid_BR), parts=parts)

    def _classified(
        self, images: PaddedImages, features: OrderedDict[str, Tensor], rois: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled maps (n, C, S, S), logits (n, K + 1) and offsets (n, 4 (K + 1)) of the regions of all images."""
        pooled = self.roi_heads.box_roi_pool(features, rois, images.image_sizes)
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return single(pooled), single(logits), single(deltas)

    def _meta(self, images: PaddedImages, features: OrderedDict[str, Tensor], regions: int) -> Outputs:
        """Outputs without values for this number of regions."""
        parts, _ = self._heads(features)
        batch, like = len(images.tensors), parts["objectness"]
        side = self.roi_heads.box_roi_pool.output_size
        of_image = F.adaptive_max_pool2d(next(iter(features.values())), side)  # which keeps the channels
        pooled = torch.cat([of_image] * regions)
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        named = {"roi_features": pooled, "roi_deltas": deltas.unflatten(1, (-1, 4))}
        parts |= {name: each.unflatten(0, (batch, regions)) for name, each in named.items()}
        parts["rois"] = like.new_empty(batch, regions, 4)
        parts["roi_valid"] = like.new_empty(batch, regions, dtype=torch.bool)
        return Outputs(logits.unflatten(0, (batch, regions)), parts=parts)


@contextmanager
def _random_numbers_of(target: Target, use: int) -> Iterator[None]:
    """A context in which random numbers depend on the target's `seed` and on `use` alone, if it has one."""
    if "seed" not in target:
        yield
        return
    device = target["boxes"].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(target["seed"]) + use)
        yield


def _scattered(values: Tensor, valid_BR: Tensor) -> Tensor:
    """Rows (n, ...) at the n true places of `valid_BR` (B, R, ...), and zeros at the others."""
    whole = values.new_zeros(*valid_BR.shape, *values.shape[1:])
    return whole.index_put((valid_BR,), values)
