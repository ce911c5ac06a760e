"""torchvision's detectors by name, with random weights."""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.networks.detectors.one_stage import OneStageDetector
from worker.distillation.networks.detectors.two_stage import TwoStageDetector
from worker.distillation.networks.family import Pattern, on_any_device
from worker.distillation.parameters import Range

WHOLE = ("maskrcnn", "keypointrcnn")
"""Networks that predict more than boxes."""
DIVISIBLE = 32
SSD_SIZES = {"ssd300_vgg16": (300, 300), "ssdlite320_mobilenet_v3_large": (320, 320)}


@dataclass(frozen=True)
class Options:
    """What torchvision's builders leave open."""

    detections: Annotated[int, Range(ge=1, le=1000), "Most detections of an image."] = 100
    proposals: Annotated[
        int, Range(ge=16, le=2000), "Most proposals of an image; those of Faster R-CNN alone have them."
    ] = 1000
    regions: Annotated[
        int,
        Range(ge=8, le=512),
        "Regions of an image that are drawn in training; those of Faster R-CNN alone have them.",
    ] = 512


def build(name: str, classes: int, contract: InputContract, options: Options = Options()) -> nn.Module:  # frozen
    """The detector `name` for `classes` of objects: its layers have one more class, the background.

    Raises:
        SpecError: torchvision has no such detector, or it cannot read images of this contract.
    """
    from torchvision.models import detection, get_model, list_models

    if name not in list_models(module=detection) or name.startswith(WHOLE):
        raise SpecError([Problem("/network", f"torchvision has no detector {name!r} that returns boxes alone")])
    if contract.channels != 3:
        raise SpecError([Problem("/network", f"{name} requires images of 3 channels, not {contract.channels}")])
    if name in SSD_SIZES and (contract.height, contract.width) != SSD_SIZES[name]:
        sizes = "x".join(map(str, SSD_SIZES[name]))
        raise SpecError([Problem("/network", f"{name} requires images of {sizes} pixels")])
    given = _arguments(name, options)
    model = on_any_device(
        lambda: get_model(name, weights=None, weights_backbone=None, num_classes=classes + 1, **given)
    )
    return _detector(name, model, classes)


def _arguments(name: str, options: Options) -> dict[str, Any]:
    if not name.startswith("fasterrcnn"):
        return {"detections_per_img": options.detections}
    return {
        "box_detections_per_img": options.detections,
        "rpn_post_nms_top_n_train": options.proposals,
        "rpn_post_nms_top_n_test": options.proposals,
        "box_batch_size_per_image": options.regions,
    }


def _detector(name: str, model: Any, classes: int) -> Detector:
    if name in SSD_SIZES:
        return OneStageDetector(model, classes, 1)
    stages = tuple(f"backbone.fpn.layer_blocks.{level}" for level in range(len(model.backbone.fpn.layer_blocks)))
    if name.startswith("fasterrcnn"):
        return TwoStageDetector(model, DIVISIBLE, stages)
    return OneStageDetector(model, classes, DIVISIBLE, stages)


PATTERN = Pattern(
    "torchvision_detection/",
    r"^torchvision_detection/[a-z0-9_]+$",
    "A detector of torchvision by its name in torchvision, such as torchvision_detection/fasterrcnn_resnet50_fpn, with random"
    " weights. It has one class more than there are classes of objects: the background.",
    build,
    Options,
)
