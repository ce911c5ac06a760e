"""Batches from a labelled dataset, whose images are held on the device or decoded in threads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.data import samplers
from worker.distillation.data.decoding_threads import AHEAD, Ahead
from worker.distillation.data.drawn_epoch import DrawnEpoch, EpochParameters, Epochs, Shifts
from worker.distillation.data.fields import KINDS
from worker.distillation.data.images import Images
from worker.distillation.data.mixing import Mixing
from worker.distillation.data.random_views import RandomViews
from worker.distillation.data.shown_parameters import RESIZED, ShownParameters
from worker.distillation.data.transfers import sent
from worker.distillation.distributed.division import Division
from worker.distillation.errors import Problem, SpecError
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch
from worker.distillation.task import DENSE_TASKS, EVERY_TASK
from worker.distillation.wording import listed

MOVED = ("mask", "depth", "boxes", "box_label", "crowd", "box_area")
"""Fields that move with their image."""


class Dataset(Source):
    """Shuffles the dataset every epoch and augments its batches.

    The order of an epoch and the augmentation of each image depend on the seed, the epoch and the step alone, so that a resume
    needs only the position. Teacher and student see the same views (Beyer et al., "Knowledge distillation: a good teacher is
    patient and consistent", arXiv:2106.05237). The sampler `per_class` is that of BAKE (Ge et al., arXiv:2104.13298): every image of the
    shuffled dataset comes with `same_class_images` others of its class, so that an epoch has `1 + same_class_images` times
    as many images; each gets its own augmentation. If an objective needs second views, each image of a batch is augmented a second
    time.
    """

    provides = ("label", "index", "second_view", "target", *MOVED)
    needs = SourceNeeds(dataset=True)
    samplers = ("per_class",)
    tasks = (*EVERY_TASK, *DENSE_TASKS)
    divides = True
    when = {("teacher_reads", "privileged"): {"provides": (*provides, "privileged")}}

    @dataclass(frozen=True)
    class Parameters(ShownParameters):
        pass

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
        self._check_mixing()
        self._check_places()
        self._drawn = self._epoch_parameters()
        self._epochs = Epochs(lambda epoch: DrawnEpoch.draw(self.images, self._drawn, context.seed, epoch))
        self._ahead = Ahead(self._begin, self.steps_per_epoch(), AHEAD if self.images.decodes else 0)

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
        return self._ahead.take(position.epoch, position.step)()

    def _begin(self, epoch: int, step: int) -> Callable[[], Batch]:
        """Draw a batch and start to read its images; the result waits for them."""
        drawn = self._epochs.at(epoch)
        rows = slice(step * self._anchors, (step + 1) * self._anchors)
        whole = drawn.images[rows].T.flatten()
        division = Division.of(len(whole), self.context.ranks)
        chosen, place = whole[division.rows], drawn.views[rows].T.flatten()[division.rows]
        mixing = self._draw_mixing(len(whole), epoch, step)
        views = self._draw_views("", len(whole), division, epoch, step)
        image = self._read(self.images, chosen, place, drawn.shifts, views)
        in_order = drawn.views_on_cpu[rows].T.flatten()[division.rows]
        second = self._second_view(drawn, chosen, in_order, division, len(whole), epoch, step)
        reads_privileged = self.settings.teacher_reads == "privileged"
        other = self.images.for_teacher
        privileged = self._read(other, chosen, place, drawn.shifts, views) if reads_privileged else None

        def finish() -> Batch:
            fields = self.images.batch_fields(chosen)
            if drawn.shifts is not None and not KINDS.keys().isdisjoint(fields):
                fields = drawn.shifts.apply_fields(fields, place, self._size)
            if second is not None:
                fields["second_view"] = self.images.normalise(second())
            if privileged is not None:
                fields["privileged"] = _mixed(other.normalise(privileged()), mixing)
            view = None if self.distinct_views() is None else self._numbers(drawn.number, chosen)
            return Batch(_mixed(self.images.normalise(image()), mixing), fields, division=division, view=view)

        return finish

    def check_distinct_views(self) -> None:
        if self.settings.changes_by_step:
            words = "draws new views for every batch, so that the teacher's outputs cannot be cached"
            hint = "Choose `none`, `standard` or `shift` without a policy, jitter, erasing and mixing, or training/teacher_answers `live`."
            raise SpecError([Problem("/source/augmentation", words)], hint)
        if self.settings.augmentation != "none" and self.settings.views is None:
            words = "is required to cache the teacher's outputs: without it every epoch shows new views of the images"
            raise SpecError([Problem("/source/views", words)], "Set it, or set training/teacher_answers to `live`.")

    def distinct_views(self) -> int | None:
        if self.settings.changes_by_step:
            return None
        if self.settings.augmentation == "none":
            return len(self.images)
        return self.settings.views and self.settings.views * len(self.images)

    def every_view(self) -> Iterator[Batch]:
        size, ranks, device = len(self.images), self.context.ranks, self.images.device
        length = min(size, -(-self._anchors * (1 + self._drawn.mates) // ranks.size))
        for number in range((self.distinct_views() or 0) // size):
            shifts = self._drawn.shifts(size, self.context.seed, number, device)
            for start in range(length * ranks.rank, size, length * ranks.size):
                rows = torch.arange(start, start + length, device=device) % size
                yield self._plain(rows, shifts, self._numbers(number, rows))

    def _numbers(self, number: int, chosen: Tensor) -> Tensor:
        """The numbers of these images' views; all shifts are one view without any."""
        return chosen if self.settings.augmentation == "none" else len(self.images) * number + chosen

    def _plain(self, rows: Tensor, shifts: Shifts | None, numbers: Tensor) -> Batch:
        """What networks read of these images, in one view of each."""

        def shown(images: Images) -> Tensor:
            return images.normalise(self._read(images, rows, rows, shifts, None)())

        other = {"privileged": shown(self.images.for_teacher)} if self.settings.teacher_reads == "privileged" else {}
        return Batch(shown(self.images), other, view=numbers)

    def _read(
        self, images: Images, chosen: Tensor, place: Tensor, shifts: Shifts | None, views: RandomViews | None
    ) -> Callable[[], Tensor]:
        """Start to read images (B, C, H, W) uint8 as these views show them."""
        parts = None if views is None else views.crops(images.sizes(chosen))
        pending = images.begin(chosen, parts)

        def finish() -> Tensor:
            image = pending()
            if shifts is not None:
                image = shifts.apply(image, place)
            return image if views is None else views.apply(image, images.contract.mean)

        return finish

    def _second_view(
        self, drawn: DrawnEpoch, chosen: Tensor, in_order: Tensor, division: Division, whole: int, epoch: int, step: int
    ) -> Callable[[], Tensor] | None:
        """Start to read the second views; None if no objective needs them. `in_order`: rows of the views, on the CPU."""
        if "second_view" not in self.context.fields:
            return None
        views = self._draw_views("second view/", whole, division, epoch, step)
        pending = self._read(self.images, chosen, sent(in_order, self.images.device), drawn.second_shifts, views)
        strong = drawn.strong
        return pending if strong is None else lambda: strong.apply(pending(), in_order)

    def _epoch_parameters(self) -> EpochParameters:
        p = self.settings
        return EpochParameters(
            mates=p.same_class_images if self.per_class else 0,
            padding=p.padding if p.augmentation in ("standard", "shift") else None,
            scales=(p.least_scale, p.most_scale) if p.augmentation == "scale_crop_flip" else None,
            flips=p.augmentation in ("standard", "scale_crop_flip"),
            views=p.views,
            second_views="second_view" in self.context.fields,
            strength=p.strength if p.second_view == "strong" else None,
        )

    def _draw_views(self, which: str, whole: int, division: Division, epoch: int, step: int) -> RandomViews | None:
        """The views of this rank's part of a batch of `whole` images; None without any."""
        crops = self.settings.augmentation in RESIZED
        if not crops and not self.settings.drawn.changes_pixels:
            return None
        draw = samplers.generator(self.context.seed, f"{which}views", epoch, step)
        return RandomViews.draw(self.settings.drawn, crops, whole, draw).at(division.rows)

    @property
    def _size(self) -> tuple[int, int]:
        return self.images.contract.height, self.images.contract.width

    def _draw_mixing(self, size: int, epoch: int, step: int) -> Mixing | None:
        draw = samplers.generator(self.context.seed, "mixing", epoch, step)
        return Mixing.draw(size, self.settings.drawn.mixup, self.settings.drawn.cutmix, draw)

    def _check_mixing(self) -> None:
        """Raises: SpecError: images are mixed, and an objective reads what is true of one image, or there are several ranks."""
        if not (self.settings.drawn.mixup or self.settings.drawn.cutmix):
            return
        read = sorted({"label", "target", "index", "second_view"} & set(self.context.fields))
        place = "/source/augmentation" if self.settings.augmentation == "consistent" else "/source"
        if read or self.per_class:
            words = f"mixes images, and the objectives read {', '.join(read) or 'mates of one class'}"
            hint = "Choose objectives on the teacher's outputs alone, such as `kd`, or no mixup and cutmix."
            raise SpecError([Problem(place, words)], hint)
        if self.context.ranks.size > 1:
            raise SpecError(
                [Problem(place, "mixes images, which is not supported on several devices")], "Use one device."
            )

    def _check_places(self) -> None:
        """Raises: SpecError: images are cropped or mixed in a way that masks, depth and boxes do not follow."""
        p = self.settings.drawn
        moved = sorted(KINDS.keys() & self.images.fields.keys())
        if moved and (self.settings.augmentation in RESIZED or p.policy != "none" or p.mixup or p.cutmix):
            words = f"moves images without their {' and '.join(moved)}"
            hint = "Choose `scale_crop_flip`, `standard`, `shift` or `none`, without a policy, mixup and cutmix."
            raise SpecError([Problem("/source/augmentation", words)], hint)

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
            words = f"has only one training image of each of these classes, so that it has no mate: {listed(alone)}"
            raise SpecError([Problem("/dataset", words)], "Add images to these classes, or leave the classes out.")


def _name(images: Images, label: int) -> str:
    return images.class_names[label] if label < len(images.class_names) else str(label)


def _mixed(image: Tensor, mixing: Mixing | None) -> Tensor:
    return image if mixing is None else mixing.apply(image)
