"""Detectors as code: the calls of torchvision that make their parts, with the values that the parts have."""

from typing import Any

from torch import nn

from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.networks.detectors.one_stage import OneStageDetector
from worker.distillation.networks.detectors.tiny import PyramidBackbone
from worker.distillation.networks.detectors.two_stage import TwoStageDetector

DETECTION = "torchvision.models.detection"


def code_of(detector: Detector) -> tuple[str, dict[str, str], dict[str, str]] | None:
    """The name of a class in `detector_loading.py`, the calls that make its parts beside the backbone, and the code of its values.

    None of a detector that is not of our family.
    """
    if not isinstance(detector.backbone, PyramidBackbone):
        return None
    values = {"divisible": repr(detector.divisible), "most": repr(detector.most_detections)}
    if isinstance(detector, TwoStageDetector):
        return (
            "TwoStages",
            {"rpn": _proposals(detector.rpn), "roi_heads": _regions(detector.roi_heads, detector.classes + 1)},
            values,
        )
    if not isinstance(detector, OneStageDetector):
        return None
    whole, classes = detector.whole, detector.classes + 1
    kind = type(whole).__name__
    # the head of FCOS is made with the channels that its norm takes, and its layers are replaced
    channels = 32 if kind == "FCOS" else detector.backbone.out_channels
    count = whole.anchor_generator.num_anchors_per_location()[0]
    module, rest = ("fcos", ", num_convs=1") if kind == "FCOS" else ("retinanet", "")
    head = f"{DETECTION}.{module}.{kind}Head({channels}, {count}, {classes}{rest})"
    given = ", ".join(f"{name}={getattr(whole, name)!r}" for name in SETTINGS)
    backbone = f"Module(out_channels={detector.backbone.out_channels})"
    anchors = f"anchor_generator={_anchors(whole.anchor_generator)}"
    made = f"{DETECTION}.{kind}({backbone}, {classes}, {anchors}, head=nn.Identity(), {given})"
    return "OneStage", {"head": head}, values | {"whole": f"({made},)"}


SETTINGS = ("score_thresh", "nms_thresh", "detections_per_img", "topk_candidates")


def _anchors(generator: Any) -> str:
    return f"{DETECTION}.anchor_utils.AnchorGenerator({generator.sizes!r}, {generator.aspect_ratios!r})"


def _proposals(rpn: Any) -> str:
    count = rpn.anchor_generator.num_anchors_per_location()[0]
    head = f"{DETECTION}.rpn.RPNHead({_inputs(rpn.head.cls_logits)}, {count})"
    matcher, sampler = rpn.proposal_matcher, rpn.fg_bg_sampler
    trained = [matcher.high_threshold, matcher.low_threshold, sampler.batch_size_per_image, sampler.positive_fraction]
    values = [*trained, rpn._pre_nms_top_n, rpn._post_nms_top_n, rpn.nms_thresh, rpn.score_thresh]
    given = ", ".join(map(repr, values))
    return f"{DETECTION}.rpn.RegionProposalNetwork({_anchors(rpn.anchor_generator)}, {head}, {given})"


def _regions(heads: Any, outputs: int) -> str:
    pool, matcher, sampler = heads.box_roi_pool, heads.proposal_matcher, heads.fg_bg_sampler
    scales = f"canonical_scale={pool.canonical_scale}, canonical_level={pool.canonical_level}"
    pooling = f"{list(pool.featmap_names)!r}, {pool.output_size!r}, {pool.sampling_ratio}, {scales}"
    hidden = _inputs(heads.box_predictor.cls_score)
    parts = [
        f"torchvision.ops.MultiScaleRoIAlign({pooling})",
        f"{DETECTION}.faster_rcnn.TwoMLPHead({_inputs(heads.box_head.fc6)}, {hidden})",
        f"{DETECTION}.faster_rcnn.FastRCNNPredictor({hidden}, {outputs})",
    ]
    trained = [matcher.high_threshold, matcher.low_threshold, sampler.batch_size_per_image, sampler.positive_fraction]
    values = [*trained, tuple(heads.box_coder.weights), heads.score_thresh, heads.nms_thresh, heads.detections_per_img]
    return f"{DETECTION}.roi_heads.RoIHeads({', '.join([*parts, *map(repr, values)])})"


def _inputs(layer: nn.Module) -> int:
    """The channels that a convolution or a linear layer reads; of one that was replaced, those of its first part."""
    count = getattr(layer, "in_channels", getattr(layer, "in_features", None))
    return int(count) if count is not None else _inputs(next(layer.children()))
