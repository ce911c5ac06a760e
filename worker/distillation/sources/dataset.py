"""Batches from a labelled dataset that is held on the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import nn

from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.data.images import Images
from worker.distillation.division import Division
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch


class Dataset(Source):
    """Shuffles the dataset every epoch and augments its batches.

    The order of an epoch and how each image is moved depend on the seed and the epoch alone, so that the position is
    all that a resume needs. The sampler `per_class` is that of BAKE (Ge et al., arXiv:2104.13298): every image of the
    shuffled dataset, and beside it others of its class, so that an epoch has `1 + mates` times as many images; each
    gets a view of its own.
    """

    provides = ("label", "index")
    needs = SourceNeeds(dataset=True)
    samplers = ("per_class",)
    divides = True

    @dataclass(frozen=True)
    class Parameters:
        augmentation: Annotated[
            Literal["none", "standard", "shift"],
            "`standard`: random crop of the zero-padded image and a horizontal flip; `shift`: the crop alone, for digits and text.",
        ] = "none"
        padding: Annotated[int, Range(ge=1, le=64), "Pixels of padding on each side before the crop."] = 4
        drop_last: Annotated[bool, "Leave out the smaller batch at the end of an epoch."] = True
        sampler: Annotated[
            Literal["shuffled", "per_class"] | None,
            "How batches are drawn: shuffled, or with mates of the same class; null for what the objectives demand.",
        ] = None
        mates: Annotated[
            int, Range(ge=1, le=64), "How many others of its class the sampler `per_class` draws for each image."
        ] = 3

    def build(self, context: SourceContext) -> None:
        """Take the dataset.

        Raises:
            SpecError: there is none, or its batches cannot be drawn as is demanded.
        """
        super().build(context)
        if context.dataset is None or not len(context.dataset):
            raise SpecError([Problem("/dataset", "the source `dataset` needs a dataset with at least one image")])
        self.per_class = "per_class" in (self.parameters.sampler, context.sampler)
        self._anchors = context.batch_size // (1 + self.parameters.mates) if self.per_class else context.batch_size
        if self.per_class:
            self._check_classes(context.dataset)
        self.images = context.dataset
        self._epoch: int | None = None

    def check_sampler(self, demanded: str | None) -> None:
        super().check_sampler(demanded)
        if self.parameters.sampler is not None and demanded not in (None, self.parameters.sampler):
            words = f"must be {demanded!r}, as the objectives demand, or left out"
            raise SpecError([Problem("/source/sampler", words)])

    def steps_per_epoch(self) -> int:
        return samplers.steps(len(self.images), self._anchors, self.parameters.drop_last)

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Batch `position.step` of epoch `position.epoch`; fields `label` and `index`, both (B,) int64.

        With the sampler `per_class` it holds as many images as fit beside their mates, then the first mate of each,
        then the second, and so on.
        """
        self._begin(position.epoch)
        rows = slice(position.step * self._anchors, (position.step + 1) * self._anchors)
        whole = self._drawn[rows].T.flatten()
        division = Division.of(len(whole), self.context.ranks)
        chosen = whole[division.rows]
        image = self.images.image[chosen]
        if self._views is not None:
            image = self._views.apply(image, self._view[rows].T.flatten()[division.rows])
        fields = {"label": self.images.label[chosen], "index": self.images.index[chosen]}
        return Batch(self.images.normalise(image), fields, division=division)

    def _begin(self, epoch: int) -> None:
        """Draw an epoch: `_drawn` (N, 1 + mates), positions of images and of their mates, and the view of each."""
        if epoch == self._epoch:
            return
        size, seed, device = len(self.images), self.context.seed, self.images.image.device
        drawn = view = samplers.shuffled(size, seed, epoch)[:, None]
        if self.per_class:
            draw = samplers.generator(seed, "mates", epoch)
            mates = samplers.mates(self.images.label.cpu(), drawn[:, 0], self.parameters.mates, draw)
            drawn = torch.cat([drawn, mates], dim=1)
            view = torch.arange(drawn.numel()).view_as(drawn)
        self._drawn, self._view, self._views = drawn.to(device), view.to(device), None
        if self.parameters.augmentation != "none":
            flips = self.parameters.augmentation == "standard"
            draw = samplers.generator(seed, "augmentation", epoch)
            self._views = Views.draw(drawn.numel(), self.parameters.padding, flips, draw, device)
        self._epoch = epoch

    def _check_classes(self, images: Images) -> None:
        if not self._anchors:
            words = f"has no room for an image and its {self.parameters.mates} mates of the same class"
            raise SpecError([Problem("/training/batch_size", words)], "Raise it, or lower source/mates.")
        alone = [_name(images, number) for number in samplers.lonely(images.label.cpu())]
        if alone:
            listed = ", ".join(alone[:8]) + (f" and {len(alone) - 8} more" if len(alone) > 8 else "")
            words = f"has a single training image of each of these classes, which leaves it without a mate: {listed}"
            raise SpecError([Problem("/dataset", words)], "Add an image to each of them, or leave them out.")


def _name(images: Images, label: int) -> str:
    return images.class_names[label] if label < len(images.class_names) else str(label)
