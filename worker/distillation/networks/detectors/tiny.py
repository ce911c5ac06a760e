"""Small detectors for images of about 100 to 300 pixels: our encoder and feature pyramid under torchvision's heads."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.dense.encoder import STRIDES, Encoder
from worker.distillation.networks.dense.pyramid import FeaturePyramid
from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.networks.detectors.one_stage import OneStageDetector
from worker.distillation.networks.detectors.two_stage import TwoStageDetector
from worker.distillation.networks.family import Network, by_name_alone, check_size
from worker.distillation.parameters import Example, Items, Range

DIVISIBLE = 16
LEAST = 32
RATIOS = (0.5, 1.0, 2.0)
LEVELS = ("0", "1", "2")
OCTAVES = 3
SIDE = 5
"""Height and width of the map of a region."""
STAGES = tuple(f"backbone.pyramid.output.{level}" for level in LEVELS)


@dataclass(frozen=True)
class Options:
    """Channels and anchors. The defaults are those of a small student; a teacher of `tiny_faster_rcnn` may have 24, 48 and 192."""

    width: Annotated[
        int,
        Range(ge=1, le=512),
        "Channels of the encoder at a stride of 4 pixels; later maps have 2 and 4 times as many.",
    ] = 8
    features: Annotated[int, Range(ge=1, le=1024), "Channels of each map of the feature pyramid."] = 16
    hidden: Annotated[
        int,
        Range(ge=1, le=4096),
        "Size of the two hidden layers of a region's head; `tiny_faster_rcnn` alone has them.",
    ] = 72
    blocks: Annotated[int, Range(ge=1, le=32), "Residual blocks at each resolution."] = 1
    anchors: Annotated[
        tuple[int, ...],
        Items(least=3, most=3),
        "Side in pixels of the anchors at strides of 4, 8 and 16 pixels: about the sizes of the objects. `tiny_fcos` has none.",
        Example([12, 24, 48]),
    ] = (12, 24, 48)
    proposals: Annotated[
        int, Range(ge=16, le=2000), "Most proposals of an image; `tiny_faster_rcnn` alone has them."
    ] = 200
    regions: Annotated[
        int, Range(ge=8, le=512), "Regions of an image that are drawn in training; `tiny_faster_rcnn` alone has them."
    ] = 64
    detections: Annotated[int, Range(ge=1, le=1000), "Most detections of an image."] = 100


class PyramidBackbone(nn.Module):
    """The maps of the feature pyramid by the names that torchvision expects."""

    def __init__(self, contract: InputContract, options: Options):
        super().__init__()
        self.encoder = Encoder(contract.channels, options.width, options.blocks)
        self.pyramid = FeaturePyramid(self.encoder.channels, options.features)
        self.out_channels = options.features

    def forward(self, images_BCHW: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(zip(LEVELS, self.pyramid(self.encoder(images_BCHW)), strict=True))


WIDTHS = ("width", "features", "hidden")
UNUSED: dict[str, Any] = {"image_mean": [0.0], "image_std": [1.0]}
"""Of the transform in torchvision's networks, which we leave out: images are normalised by the input contract."""


def faster_rcnn(classes: int, contract: InputContract, options: Options) -> Detector:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    check_anchors(contract, options)
    backbone, features = PyramidBackbone(contract, options), options.features
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(tuple((each,) for each in options.anchors), (RATIOS,) * len(LEVELS)),
        rpn_pre_nms_top_n_train=2 * options.proposals,
        rpn_pre_nms_top_n_test=2 * options.proposals,
        rpn_post_nms_top_n_train=options.proposals,
        rpn_post_nms_top_n_test=options.proposals,
        rpn_batch_size_per_image=128,
        box_roi_pool=MultiScaleRoIAlign(list(LEVELS), SIDE, sampling_ratio=2, canonical_scale=64, canonical_level=4),
        box_head=TwoMLPHead(features * SIDE**2, options.hidden),
        box_predictor=FastRCNNPredictor(options.hidden, classes + 1),
        box_batch_size_per_image=options.regions,
        box_detections_per_img=options.detections,
        **UNUSED,
    )
    return TwoStageDetector(model, DIVISIBLE, STAGES)


def retinanet(classes: int, contract: InputContract, options: Options) -> Detector:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    check_anchors(contract, options)
    sizes = tuple(tuple(round(each * 2 ** (part / OCTAVES)) for part in range(OCTAVES)) for each in options.anchors)
    model = RetinaNet(
        PyramidBackbone(contract, options),
        classes + 1,
        anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(LEVELS)),
        detections_per_img=options.detections,
        **UNUSED,
    )
    return OneStageDetector(model, classes, DIVISIBLE, STAGES)


def fcos(classes: int, contract: InputContract, options: Options) -> Detector:
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead

    check_anchors(contract, options)
    backbone, features = PyramidBackbone(contract, options), options.features
    norm = partial(nn.GroupNorm, math.gcd(features, 8))
    head = FCOSHead(32, 1, classes + 1, num_convs=1)  # whose parts are replaced, as it takes no other norm
    head.classification_head = FCOSClassificationHead(features, 1, classes + 1, 2, norm_layer=norm)
    head.regression_head = FCOSRegressionHead(features, 1, 2, norm_layer=norm)
    model = FCOS(
        backbone,
        classes + 1,
        anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(LEVELS)),
        head=head,
        detections_per_img=options.detections,
        **UNUSED,
    )
    return OneStageDetector(model, classes, DIVISIBLE, STAGES)


def check_anchors(contract: InputContract, options: Options) -> None:
    """Check that anchors grow with the stride, and that images are large enough.

    Raises:
        SpecError: they are not.
    """
    check_size(contract, LEAST)
    if list(options.anchors) != sorted(options.anchors) or options.anchors[0] < 1:
        raise SpecError([Problem("/options/anchors", "must be positive and in ascending order, as the strides are")])


NETWORKS = {
    "tiny_faster_rcnn": Network(
        "A detector of two stages for small images: residual encoder, feature pyramid, proposals, and a head for each region.",
        faster_rcnn,
        "arXiv:1506.01497",
        Options,
        widths=WIDTHS,
        guess=by_name_alone,
    ),
    "tiny_retinanet": Network(
        "A detector of one stage for small images: residual encoder, feature pyramid, and RetinaNet's head on anchors.",
        retinanet,
        "arXiv:1708.02002",
        Options,
        widths=WIDTHS,
        guess=by_name_alone,
    ),
    "tiny_fcos": Network(
        "A detector of one stage without anchors for small images: residual encoder, feature pyramid, and FCOS' head.",
        fcos,
        "arXiv:1904.01355",
        Options,
        widths=WIDTHS,
        guess=by_name_alone,
    ),
}
