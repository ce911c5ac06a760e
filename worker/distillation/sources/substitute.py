"""Substitute: images of another dataset, from which students learn through the teacher's outputs alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from worker.distillation.data import samplers
from worker.distillation.data.decoding_threads import AHEAD, Ahead
from worker.distillation.data.drawn_epoch import DrawnEpoch, EpochParameters, Epochs
from worker.distillation.data.scaled_crops import LEAST_SCALE, MOST_SCALE
from worker.distillation.distributed.division import Division
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import (
    LABEL_FREE_OBJECTIVES,
    LabelsOf,
    Position,
    Source,
    SourceContext,
    SourceNeeds,
    taught,
)
from worker.distillation.step import Batch
from worker.distillation.task import DENSE_TASKS

PREVIEWS = 64


class Substitute(Source):
    """Shuffles the images of the job's dataset without reading its labels: the "alternative data" of data-free
    distillation.

    Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186, table 1 (94.56 % on MNIST from USPS).
    Images of any classes can be used; upload images without labels as a zip or an npz file without labels. They are converted to the
    teacher's input contract like any dataset: grey is repeated over the channels, RGB becomes weighted grey (ITU-R
    BT.601), images are resized by bilinear interpolation with antialiasing (the aspect ratio is not kept), and the
    teacher's mean and std normalise them. The teacher needs no gradient. Batches depend on the seed and their position
    alone.
    """

    paper = "arXiv:1904.01186"
    provides = ("index",)
    when = {("labels", "teacher"): {"provides": ("index", "label", "mask", "depth", "boxes")}}
    tasks = ("classification", "multi_label", *DENSE_TASKS)
    needs = SourceNeeds(dataset=True, teacher=True)
    ignores_labels = True
    divides = True
    objective_defaults = LABEL_FREE_OBJECTIVES

    @dataclass(frozen=True)
    class Parameters:
        labels: Annotated[
            LabelsOf,
            "Labels of the images. `teacher`: the teacher's predicted class, of each pixel for maps, or its detections with a score of at least 0.5; `none`: no labels.",
        ] = "none"
        augmentation: Annotated[
            Literal["none", "standard", "shift", "scale_crop_flip"],
            "Random augmentation. `standard`: random crop of the zero-padded image and a horizontal flip; "
            "`shift`: only the crop; `scale_crop_flip`: a random scale from 0.75 to 1.5, a crop and a horizontal flip.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
        drop_last: Annotated[bool, "Drop the smaller batch at the end of an epoch."] = True

    def build(self, context: SourceContext) -> None:
        """Use the context's images.

        Raises:
            SpecError: there are none, or batches must be drawn in a way that needs labels.
        """
        super().build(context)
        if context.dataset is None or not len(context.dataset):
            raise SpecError([Problem("/dataset", "the source `substitute` needs a dataset with at least one image")])
        self.images = context.dataset
        kind = self.settings.augmentation
        drawn = EpochParameters(
            padding=self.settings.padding if kind in ("standard", "shift") else None,
            scales=(LEAST_SCALE, MOST_SCALE) if kind == "scale_crop_flip" else None,
            flips=kind in ("standard", "scale_crop_flip"),
        )
        self._epochs = Epochs(lambda epoch: DrawnEpoch.draw(self.images, drawn, context.seed, epoch))
        self._ahead = Ahead(self._begin, self.steps_per_epoch(), AHEAD if self.images.decodes else 0)

    def steps_per_epoch(self) -> int:
        return samplers.steps(len(self.images), self.context.batch_size, self.settings.drop_last)

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.step` of epoch `position.epoch`; field `index` (B,) int64, and with `labels` the teacher's
        predictions: `label` (B,) int64, `mask` or `depth` (B, H, W), or `boxes` (B, D, 4) with `box_label` (B, D)."""
        return self._ahead.take(position.epoch, position.step)()

    def _begin(self, epoch: int, step: int) -> Callable[[], Batch]:
        """Start to read the images of a batch; the result waits for them, and asks the teacher."""
        drawn, size = self._epochs.at(epoch), self.context.batch_size
        rows = drawn.images[step * size : (step + 1) * size, 0]
        division = Division.of(len(rows), self.context.ranks)
        chosen = rows[division.rows]
        pending = self.images.begin(chosen)

        def finish() -> Batch:
            image = pending() if drawn.shifts is None else drawn.shifts.apply(pending(), chosen)
            batch = Batch(self.images.normalise(image), {"index": self.images.index[chosen]}, division=division)
            return taught(batch, self.context) if self.settings.labels == "teacher" else batch

        return finish

    def previews(self) -> dict[str, Tensor]:
        """The first images, converted to the networks' input."""
        return {"samples": self.images.normalise(self.images.pixels(slice(PREVIEWS)))}
