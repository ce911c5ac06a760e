"""Renumber labels if a dataset has the class names of a job's networks in another order."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from worker.distillation.contract_check.class_names import other_order
from worker.distillation.data.fields import IGNORED, NO_BOX
from worker.distillation.data.images import Images


def in_order(images: Images, wanted: Sequence[str]) -> Images:
    """The images, with labels renumbered so that class k has the name `wanted[k]`. Columns of labels or targets move too.

    If the names differ or are missing, the images are returned unchanged.
    """
    order = other_order(images.class_names, wanted)
    if order is None:
        return images
    place = torch.tensor(order, device=images.image.device)
    fields = dict(images.fields)
    for name in {"label", "target"} & fields.keys():
        value = fields[name]
        fields[name] = place[value] if value.ndim == 1 else value[:, place.argsort()]
    if "mask" in fields:  # classes beyond the names, and ignored pixels, keep their numbers
        numbers = torch.arange(IGNORED + 1, device=place.device)
        numbers[: len(place)] = place
        fields["mask"] = numbers[fields["mask"].long()].to(torch.uint8)
    if "box_label" in fields:
        label = fields["box_label"]
        fields["box_label"] = torch.where(label == NO_BOX, label, place[label.clamp(min=0)])
    return replace(images, fields=fields, class_names=tuple(wanted))
