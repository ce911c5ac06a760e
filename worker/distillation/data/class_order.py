"""Labels by the order of classes that a job's networks have, where a dataset has the same names in another order."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from worker.distillation.data.images import Images


def is_other_order(own: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether both are the same distinct names in different orders."""
    return list(own) != list(wanted) and len(set(own)) == len(own) == len(wanted) and set(own) == set(wanted)


def in_order(images: Images, wanted: Sequence[str]) -> Images:
    """The images with labels renumbered so that class k is the one named `wanted[k]`; columns of labels or targets move alike.

    Images with other names, or without names, are returned as they are.
    """
    if not is_other_order(images.class_names, wanted):
        return images
    place = torch.tensor([wanted.index(name) for name in images.class_names], device=images.image.device)
    fields = dict(images.fields)
    for name in {"label", "target"} & fields.keys():
        value = fields[name]
        fields[name] = place[value] if value.ndim == 1 else value[:, place.argsort()]
    return replace(images, fields=fields, class_names=tuple(wanted))
