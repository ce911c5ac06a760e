"""What a user may set of the batches from a dataset: which images a batch shows, and which views of them."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from worker.distillation.data.random_views import ViewParameters
from worker.distillation.data.scaled_crops import LEAST_SCALE, MOST_SCALE
from worker.distillation.parameters import Range

RESIZED = ("resized_crop", "consistent")
"""Augmentations that show a random part of each image."""


@dataclass(frozen=True)
class ShownParameters(ViewParameters):
    """Augmentation, order and second views of a dataset's images."""

    augmentation: Annotated[
        Literal["none", "standard", "shift", "scale_crop_flip", "resized_crop", "consistent"],
        "Random augmentation. `standard`: random crop of the zero-padded image and a horizontal flip; "
        "`shift`: only the crop, for digits and text; `scale_crop_flip`: a random scale, a crop and a horizontal flip, for masks,"
        " depth and boxes, which move with the image; `resized_crop`: a random part of the image, resized, and a horizontal flip,"
        " for photographs; `consistent`: the same with mixup at uniform shares (arXiv:2106.05237), for objectives that do not"
        " read labels.",
    ] = "none"
    padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
    least_scale: Annotated[
        float, Range(ge=0.1, le=1), "Smallest scale of `scale_crop_flip`; the image is padded below 1."
    ] = LEAST_SCALE
    most_scale: Annotated[float, Range(ge=1, le=10), "Largest scale of `scale_crop_flip`."] = MOST_SCALE
    views: Annotated[
        int | None,
        Range(ge=1, le=1000),
        "Number of different shifts or scales of each image over the whole training, of which the epochs show one after the "
        "other. With a number, a teacher's outputs can be cached (`training/teacher_answers`). If null: new ones every epoch.",
    ] = None
    drop_last: Annotated[bool, "Drop the smaller batch at the end of an epoch."] = True
    sampler: Annotated[
        Literal["shuffled", "per_class"] | None,
        "How batches are drawn: shuffled, or each image with others of its class. If null: as the objectives require.",
    ] = None
    same_class_images: Annotated[
        int,
        Range(ge=1, le=64),
        "Number of other images of its class that the sampler `per_class` draws for each image.",
    ] = 3
    second_view: Annotated[
        Literal["redrawn", "strong"],
        "Second view of each image, for objectives that need one: the same augmentation drawn again "
        "(`redrawn`), or two operations of RandAugment after it (`strong`).",
    ] = "strong"
    teacher_reads: Annotated[
        Literal["image", "privileged"],
        "What a given teacher reads of each sample: the student's image, or the dataset's `privileged` image,"
        " converted to "
        "the teacher's input contract; `student/input` sets the student's.",
    ] = "image"

    @property
    def drawn(self) -> ViewParameters:
        """The parameters by which views are drawn; `consistent` mixes at uniform shares."""
        return replace(self, mixup=1.0) if self.augmentation == "consistent" else self

    @property
    def changes_by_step(self) -> bool:
        """Whether images change in ways that are drawn anew for every batch."""
        views = self.drawn
        return self.augmentation in RESIZED or views.changes_pixels or views.mixup > 0 or views.cutmix > 0
