"""Batches from a labelled dataset that is held on the device."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.data.images import Images
from worker.distillation.data.strong_views import STRONGEST, StrongViews
from worker.distillation.data.transfers import sent
from worker.distillation.distributed.division import Division
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch
from worker.distillation.task import EVERY_TASK


class Dataset(Source):
    """Shuffles the dataset every epoch and augments its batches.

    The order of an epoch and the augmentation of each image depend on the seed and the epoch alone, so that a resume
    needs only the position. The sampler `per_class` is that of BAKE (Ge et al., arXiv:2104.13298): every image of the
    shuffled dataset comes with `same_class_images` others of its class, so that an epoch has `1 + same_class_images` times
    as many images; each gets its own augmentation. If an objective needs second views, each image of a batch is augmented a second
    time.
    """

    provides = ("label", "index", "second_view", "target")
    needs = SourceNeeds(dataset=True)
    samplers = ("per_class",)
    tasks = EVERY_TASK
    divides = True
    when = {("teacher_reads", "privileged"): {"provides": (*provides, "privileged")}}

    @dataclass(frozen=True)
    class Parameters:
        augmentation: Annotated[
            Literal["none", "standard", "shift"],
            "Random augmentation. `standard`: random crop of the zero-padded image and a horizontal flip; "
            "`shift`: only the crop, for digits and text.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
        views: Annotated[
            int | None,
            Range(ge=1, le=1000),
            "Number of different augmentations of each image over the whole training, of which the epochs show one after the "
            "other. With a number, a teacher's outputs can be cached (`training/teacher_answers`). If null: a new one every epoch.",
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
        strength: Annotated[
            int, Range(ge=0, le=STRONGEST), "Magnitude of the operations of a strong view (arXiv:1909.13719)."
        ] = 10
        teacher_reads: Annotated[
            Literal["image", "privileged"],
            "What a given teacher reads of each sample: the student's image, or the dataset's `privileged` image,"
            " converted to "
            "the teacher's input contract; `student/input` sets the student's.",
        ] = "image"

    def build(self, context: SourceContext) -> None:
        """Use the context's dataset.

        Raises:
            SpecError: there is none, or its batches cannot be drawn as required.
        """
        super().build(context)
        if context.dataset is None or not len(context.dataset):
            raise SpecError([Problem("/dataset", "the source `dataset` needs a dataset with at least one image")])
        self.per_class = "per_class" in (self.settings.sampler, context.sampler)
        self._anchors = (
            context.batch_size // (1 + self.settings.same_class_images) if self.per_class else context.batch_size
        )
        if self.per_class:
            self._check_classes(context.dataset)
        self.images = context.dataset
        if self.settings.teacher_reads == "privileged":
            self._check_privileged(context.contract)
        self._epoch: int | None = None

    def check_sampler(self, required: str | None) -> None:
        super().check_sampler(required)
        if self.settings.sampler is not None and required not in (None, self.settings.sampler):
            words = f"must be {required!r}, as the objectives require, or left out"
            raise SpecError([Problem("/source/sampler", words)])

    def check_inputs(self, student: InputContract, teacher: InputContract | None) -> None:
        p = self.settings
        if p.teacher_reads == "image" or p.augmentation == "none" or teacher is None:
            return
        sizes = [f"{each.height}x{each.width}" for each in (student, teacher)]
        if sizes[0] != sizes[1]:
            read = f"the student reads {sizes[0]} and the teacher {sizes[1]}"
            words = f"applies the same crop to both images of a sample, but {read}"
            raise SpecError(
                [Problem("/source/augmentation", words)], "Choose `none`, or networks that read the same image size."
            )

    def steps_per_epoch(self) -> int:
        return samplers.steps(len(self.images), self._anchors, self.settings.drop_last)

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.step` of epoch `position.epoch`.

        Its fields are `label` and `index`, both (B,) int64; `second_view` (B, C, H, W), normalised, if it is required;
        and `privileged` (B, C', H', W'), normalised for the teacher, with the same augmentation as the image. With the
        sampler `per_class`, the batch holds as many images as fit together with the others of their class, then the
        first other image of each, then the second, and so on.
        """
        self._begin(position.epoch)
        rows = slice(position.step * self._anchors, (position.step + 1) * self._anchors)
        whole = self._drawn[rows].T.flatten()
        division = Division.of(len(whole), self.context.ranks)
        chosen = whole[division.rows]
        pixels, view = self.images.image[chosen], self._view[rows].T.flatten()[division.rows]
        image = self._views.apply(pixels, view) if self._views is not None else pixels
        fields = self.images.batch_fields(chosen)
        if "second_view" in self.context.fields:
            again = self._second.apply(pixels, view) if self._second is not None else pixels
            if self._strong is not None:
                again = self._strong.apply(again, self._order[rows].T.flatten()[division.rows])
            fields["second_view"] = self.images.normalise(again)
        if self.settings.teacher_reads == "privileged":
            other = self.images.for_teacher
            shown = other.image[chosen]
            fields["privileged"] = other.normalise(self._views.apply(shown, view) if self._views is not None else shown)
        before = len(self.images) * self._round_of(position.epoch) if self._views is not None else 0
        number = before + chosen if self.distinct_views() is not None else None
        return Batch(self.images.normalise(image), fields, division=division, view=number)

    def check_distinct_views(self) -> None:
        if self.settings.augmentation != "none" and self.settings.views is None:
            words = "is required to cache the teacher's outputs: without it every epoch shows new views of the images"
            raise SpecError([Problem("/source/views", words)], "Set it, or set training/teacher_answers to `live`.")

    def distinct_views(self) -> int | None:
        if self.settings.augmentation == "none":
            return len(self.images)
        return self.settings.views and self.settings.views * len(self.images)

    def every_view(self) -> Iterator[Batch]:
        size, ranks = len(self.images), self.context.ranks
        mates = self.settings.same_class_images if self.per_class else 0
        length = min(size, -(-self._anchors * (1 + mates) // ranks.size))
        device = self.images.image.device
        for round_ in range((self.distinct_views() or 0) // size):
            views = self._draw_views(size, "", round_)
            for start in range(length * ranks.rank, size, length * ranks.size):
                rows = torch.arange(start, start + length, device=device) % size
                yield self._plain(rows, views, size * round_ + rows)

    def _plain(self, rows: Tensor, views: Views | None, number: Tensor) -> Batch:
        """What networks read of these images, in one view of each."""

        def shown(images: Images) -> Tensor:
            pixels = images.image[rows]
            return images.normalise(views.apply(pixels, rows) if views is not None else pixels)

        other = {"privileged": shown(self.images.for_teacher)} if self.settings.teacher_reads == "privileged" else {}
        return Batch(shown(self.images), other, view=number)

    def _round_of(self, epoch: int) -> int:
        """Which augmentations an epoch shows: one of the `views`, or those of its own."""
        return epoch % self.settings.views if self.settings.views else epoch

    def _begin(self, epoch: int) -> None:
        """Draw an epoch, with M = `same_class_images`: `_drawn` (N, 1 + M), indices of images and of the others of their
        class, and the augmentation of each, `_view` (N, 1 + M), of which `_order` is a copy on the CPU."""
        if epoch == self._epoch:
            return
        size = len(self.images)
        seed = self.context.seed
        device = self.images.image.device
        drawn = view = samplers.shuffled(size, seed, epoch)[:, None]
        if self.per_class:
            draw = samplers.generator(seed, "mates", epoch)
            others = samplers.same_class(self.images.label.cpu(), drawn[:, 0], self.settings.same_class_images, draw)
            drawn = torch.cat([drawn, others], dim=1)
            view = drawn if self.settings.views else torch.arange(drawn.numel()).view_as(drawn)
        self._drawn, self._view = sent(drawn, device), sent(view, device)
        self._order = view
        self._strong = None
        count = size if self.settings.views else drawn.numel()
        self._views = self._draw_views(count, "", self._round_of(epoch))
        self._second = self._draw_views(count, "second view/", epoch)
        if self.settings.second_view == "strong" and "second_view" in self.context.fields:
            draw = samplers.generator(seed, "strong views", epoch)
            self._strong = StrongViews.draw(drawn.numel(), self.settings.strength, draw)
        self._epoch = epoch

    def _draw_views(self, size: int, which: str, epoch: int) -> Views | None:
        p = self.settings
        if p.augmentation == "none" or (which and "second_view" not in self.context.fields):
            return None
        draw = samplers.generator(self.context.seed, f"{which}augmentation", epoch)
        return Views.draw(size, p.padding, p.augmentation == "standard", draw, self.images.image.device)

    def _check_privileged(self, student: InputContract) -> None:
        if self.images.privileged is None:
            raise SpecError([Problem("/dataset", "holds no `privileged` images for the teacher")])
        self.check_inputs(student, self.images.privileged.contract)

    def _check_classes(self, images: Images) -> None:
        if not self._anchors:
            words = f"is too small for an image and {self.settings.same_class_images} others of its class"
            raise SpecError([Problem("/training/batch_size", words)], "Raise it, or lower source/same_class_images.")
        alone = [_name(images, number) for number in samplers.lonely(images.label.cpu())]
        if alone:
            listed = ", ".join(alone[:8]) + (f" and {len(alone) - 8} more" if len(alone) > 8 else "")
            words = f"has only one training image of each of these classes, so that it has no mate: {listed}"
            raise SpecError([Problem("/dataset", words)], "Add images to these classes, or leave the classes out.")


def _name(images: Images, label: int) -> str:
    return images.class_names[label] if label < len(images.class_names) else str(label)
