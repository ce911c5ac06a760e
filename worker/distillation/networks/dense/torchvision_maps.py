"""torchvision's networks for segmentation by name, with random weights.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Pattern, from_library, on_any_device


class LogitsOnly(nn.Module):
    """The backbone and the classifier of a network of torchvision, with its key names. x (B, C, H, W) -> logits (B, K, H, W).

    Published weights of an auxiliary classifier (`aux_classifier.*`) have no place here.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module, reads_all: bool):
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.reads_all = reads_all
        self.stage_candidates = tuple(f"backbone.{name}" for name, _ in backbone.named_children())

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        logits = self.classifier(features if self.reads_all else features["out"])
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build(name: str, classes: int, contract: InputContract, options: object = None) -> nn.Module:
    """The network `name` for `classes`.

    Raises:
        SpecError: torchvision has no such segmentation network, or the images do not have three channels.
    """
    from torchvision.models import get_model, list_models, segmentation

    if name not in list_models(module=segmentation):
        known = ", ".join(list_models(module=segmentation))
        raise SpecError([Problem("/network", f"torchvision has no segmentation network {name!r}; it has {known}")])
    if contract.channels != 3:
        raise SpecError([Problem("/network", f"{name} requires images of 3 channels, not {contract.channels}")])
    given: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": classes}
    network = on_any_device(lambda: get_model(name, **given))
    call = f"torchvision.models.get_model({name!r}, weights=None, weights_backbone=None, num_classes={classes})"
    backbone, classifier = (
        from_library(getattr(network, part), f"{call}.{part}") for part in ("backbone", "classifier")
    )
    return LogitsOnly(backbone, classifier, reads_all=name.startswith("lraspp"))


PATTERN = Pattern(
    "torchvision_segmentation/",
    r"^torchvision_segmentation/[a-z0-9_]+$",
    "A segmentation network of torchvision by its name in torchvision, such as"
    " torchvision_segmentation/lraspp_mobilenet_v3_large, with random weights.",
    build,
)
