"""Batches from a labelled dataset, whose images are held on the device or decoded in threads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.data.decoding_threads import AHEAD, Ahead
from worker.distillation.data.drawn_epoch import DrawnEpoch, EpochParameters, Epochs
from worker.distillation.data.images import Images
from worker.distillation.data.mixing import Mixing
from worker.distillation.data.random_views import RandomViews, ViewParameters
from worker.distillation.distributed.division import Division
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch
from worker.distillation.task import EVERY_TASK


class Dataset(Source):
    """Shuffles the dataset every epoch and augments its batches.

    The order of an epoch and the augmentation of each image depend on the seed, the epoch and the step alone, so that a resume
    needs only the position. Teacher and student see the same views (Beyer et al., "Knowledge distillation: a good teacher is
    patient and consistent", arXiv:2106.05237). The sampler `per_class` is that of BAKE (Ge et al., arXiv:2104.13298): every image of the
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
    class Parameters(ViewParameters):
        augmentation: Annotated[
            Literal["none", "standard", "shift", "resized_crop", "consistent"],
            "Random augmentation. `standard`: random crop of the zero-padded image and a horizontal flip; "
            "`shift`: only the crop, for digits and text; `resized_crop`: a random part of the image, resized, and a horizontal flip,"
            " for photographs; `consistent`: the same with mixup at uniform shares (arXiv:2106.05237), for objectives that do not"
            " read labels.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
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
        self._views_of = self.settings
        if self.settings.augmentation == "consistent":
            self._views_of = replace(self.settings, mixup=1.0)
        self._check_mixing()
        drawn = self._epoch_parameters()
        self._epochs = Epochs(lambda epoch: DrawnEpoch.draw(self.images, drawn, context.seed, epoch))
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
        second = self._second_view(drawn, chosen, place, division, len(whole), epoch, step)
        reads_privileged = self.settings.teacher_reads == "privileged"
        other = self.images.for_teacher
        privileged = self._read(other, chosen, place, drawn.shifts, views) if reads_privileged else None

        def finish() -> Batch:
            fields = self.images.batch_fields(chosen)
            if second is not None:
                fields["second_view"] = self.images.normalise(second())
            if privileged is not None:
                fields["privileged"] = _mixed(other.normalise(privileged()), mixing)
            return Batch(_mixed(self.images.normalise(image()), mixing), fields, division=division)

        return finish

    def _read(
        self, images: Images, chosen: Tensor, place: Tensor, shifts: Views | None, views: RandomViews | None
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
        self, drawn: DrawnEpoch, chosen: Tensor, place: Tensor, division: Division, whole: int, epoch: int, step: int
    ) -> Callable[[], Tensor] | None:
        """Start to read the second views; None if no objective needs them."""
        if "second_view" not in self.context.fields:
            return None
        views = self._draw_views("second view/", whole, division, epoch, step)
        pending = self._read(self.images, chosen, place, drawn.second_shifts, views)
        strong = drawn.strong
        return pending if strong is None else lambda: strong.apply(pending(), place.cpu())

    def _epoch_parameters(self) -> EpochParameters:
        p = self.settings
        return EpochParameters(
            mates=p.same_class_images if self.per_class else 0,
            padding=p.padding if p.augmentation in ("standard", "shift") else None,
            flips=p.augmentation == "standard",
            second_views="second_view" in self.context.fields,
            strength=p.strength if p.second_view == "strong" else None,
        )

    def _draw_views(self, which: str, whole: int, division: Division, epoch: int, step: int) -> RandomViews | None:
        """The views of this rank's part of a batch of `whole` images; None without any."""
        crops = self.settings.augmentation in ("resized_crop", "consistent")
        if not crops and not self._views_of.changes_pixels:
            return None
        draw = samplers.generator(self.context.seed, f"{which}views", epoch, step)
        return RandomViews.draw(self._views_of, crops, whole, draw).at(division.rows)

    def _draw_mixing(self, size: int, epoch: int, step: int) -> Mixing | None:
        draw = samplers.generator(self.context.seed, "mixing", epoch, step)
        return Mixing.draw(size, self._views_of.mixup, self._views_of.cutmix, draw)

    def _check_mixing(self) -> None:
        """Raises: SpecError: images are mixed, and an objective reads what is true of one image, or there are several ranks."""
        if not (self._views_of.mixup or self._views_of.cutmix):
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


def _mixed(image: Tensor, mixing: Mixing | None) -> Tensor:
    return image if mixing is None else mixing.apply(image)
