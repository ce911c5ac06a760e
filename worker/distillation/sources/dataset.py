"""Batches from a labelled dataset that is held on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch


class Dataset(Source):
    """Shuffles the dataset every epoch and augments its batches.

    The order of an epoch and how each image is moved depend on the seed and the epoch alone, so that the position is
    all that a resume needs.
    """

    provides = ("label", "index")
    needs = SourceNeeds(dataset=True)

    @dataclass(frozen=True)
    class Parameters:
        augmentation: Annotated[
            Literal["none", "standard", "shift"],
            "`standard`: random crop of the zero-padded image and a horizontal flip; `shift`: the crop alone, for digits and text.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
        drop_last: Annotated[bool, "Leave out the smaller batch at the end of an epoch."] = True

    def build(self, context: SourceContext) -> None:
        """Take the dataset.

        Raises:
            SpecError: there is none, or batches are demanded in a way that this source cannot draw them.
        """
        super().build(context)
        if context.dataset is None or not len(context.dataset):
            raise SpecError([Problem("/dataset", "the source `dataset` needs a dataset with at least one image")])
        if context.sampler is not None:
            raise SpecError([Problem("/source", f"the source `dataset` has no sampler called {context.sampler!r}")])
        self.images = context.dataset
        self._epoch: int | None = None

    def steps_per_epoch(self) -> int:
        return samplers.steps(len(self.images), self.context.batch_size, self.parameters.drop_last)

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.step` of epoch `position.epoch`; fields `label` and `index`, both (B,) int64."""
        self._begin(position.epoch)
        start = position.step * self.context.batch_size
        chosen = self._order[start : start + self.context.batch_size]
        image = self.images.image[chosen]
        if self._views is not None:
            image = self._views.apply(image, chosen)
        fields = {"label": self.images.label[chosen], "index": self.images.index[chosen]}
        return Batch(self.images.normalise(image), fields)

    def _begin(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        size, seed, device = len(self.images), self.context.seed, self.images.image.device
        self._order = samplers.shuffled(size, seed, epoch).to(device)
        self._views = None
        if self.parameters.augmentation != "none":
            flips = self.parameters.augmentation == "standard"
            draw = samplers.generator(seed, "augmentation", epoch)
            self._views = Views.draw(size, self.parameters.padding, flips, draw, device)
        self._epoch = epoch
