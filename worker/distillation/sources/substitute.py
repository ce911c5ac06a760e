"""Substitute: the images of another dataset, which only the teacher's answers make worth anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
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

PREVIEWS = 64


class Substitute(Source):
    """Shuffles the images of the job's dataset, whose labels are never read: the "alternative data" of data-free distillation.

    Chen et al., "Data-Free Learning of Student Networks", arXiv:1904.01186, table 1 (94.56 % on MNIST from USPS). Any
    images will do, of any classes; images without labels are uploaded as a zip or an npz file without labels. They are brought to the
    teacher's contract as any dataset's are: grey is repeated over the channels, RGB is weighed to grey (ITU-R BT.601), the
    size is met by bilinear scaling with antialiasing (aspects are not kept), and the teacher's mean and std normalise
    them. No gradient is asked of the teacher. Batches depend on the seed and their position alone.
    """

    paper = "arXiv:1904.01186"
    provides = ("index",)
    when = {("labels", "teacher"): {"provides": ("index", "label")}}
    tasks = ("classification", "multi_label")
    needs = SourceNeeds(dataset=True, teacher=True)
    ignores_labels = True
    divides = True
    objective_defaults = LABEL_FREE_OBJECTIVES

    @dataclass(frozen=True)
    class Parameters:
        labels: Annotated[
            LabelsOf, "`teacher`: the teacher's likeliest class is each image's label; `none`: there are no labels."
        ] = "none"
        augmentation: Annotated[
            Literal["none", "standard", "shift"],
            "`standard`: random crop of the zero-padded image and a horizontal flip; `shift`: the crop alone.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
        drop_last: Annotated[bool, "Leave out the smaller batch at the end of an epoch."] = True

    def build(self, context: SourceContext) -> None:
        """Take the images.

        Raises:
            SpecError: there are none, or batches are demanded in a way that needs labels.
        """
        super().build(context)
        if context.dataset is None or not len(context.dataset):
            raise SpecError([Problem("/dataset", "the source `substitute` needs a dataset with at least one image")])
        self.images = context.dataset
        self._epoch: int | None = None

    def steps_per_epoch(self) -> int:
        return samplers.steps(len(self.images), self.context.batch_size, self.settings.drop_last)

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.step` of epoch `position.epoch`; field `index` (B,) int64, and with `labels` `label` (B,) int64."""
        self._begin(position.epoch)
        size = self.context.batch_size
        rows = self._order[position.step * size : (position.step + 1) * size]
        division = Division.of(len(rows), self.context.ranks)
        chosen = rows[division.rows]
        image = self.images.image[chosen]
        if self._views is not None:
            image = self._views.apply(image, chosen)
        batch = Batch(self.images.normalise(image), {"index": self.images.index[chosen]}, division=division)
        return taught(batch, self.context) if self.settings.labels == "teacher" else batch

    def previews(self) -> dict[str, Tensor]:
        """The first images, as the networks read them."""
        return {"samples": self.images.normalise(self.images.image[:PREVIEWS])}

    def _begin(self, epoch: int) -> None:
        """Draw an epoch's order, and the view of each image."""
        if epoch == self._epoch:
            return
        size, seed, device = len(self.images), self.context.seed, self.images.image.device
        self._order, self._views = samplers.shuffled(size, seed, epoch).to(device), None
        if self.settings.augmentation != "none":
            flips, draw = self.settings.augmentation == "standard", samplers.generator(seed, "augmentation", epoch)
            self._views = Views.draw(size, self.settings.padding, flips, draw, device)
        self._epoch = epoch
