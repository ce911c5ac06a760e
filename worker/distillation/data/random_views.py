"""The random views of one batch: crops, flips, colours, policies of operations, and erased boxes.

Everything is drawn from one generator of the batch, so that a batch is a function of seed, epoch and step alone.

Shapes: B batch, C channels, H height, W width.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from worker.distillation.data.random_boxes import BoxDraws, resized_crops
from worker.distillation.data.strong_views import STRONGEST, StrongViews
from worker.distillation.parameters import Range

ERASED_AREAS, ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
"""Of Zhong et al., arXiv:1708.04896, as in torchvision's `RandomErasing`."""
HUE = 0.25
"""Turn of the hue, as a share of the strength of the other changes of colour."""


@dataclass(frozen=True)
class ViewParameters:
    """The parameters of a source that draws random views."""

    least_area: Annotated[
        float, Range(gt=0, le=1), "Least share of an image's area that a random resized crop shows."
    ] = 0.08
    policy: Annotated[
        Literal["none", "rand_augment", "trivial_augment"],
        "Random operations on each image: two of RandAugment with the magnitude `strength` (arXiv:1909.13719), or one of"
        " TrivialAugment with a random magnitude (arXiv:2103.10158).",
    ] = "none"
    strength: Annotated[
        int,
        Range(ge=0, le=STRONGEST),
        "Magnitude of the operations of RandAugment and of a strong view (arXiv:1909.13719).",
    ] = 10
    colour_jitter: Annotated[
        float,
        Range(ge=0, le=1),
        "Largest change of brightness, contrast and saturation, in random order; that of the hue is a quarter of it. 0: none.",
    ] = 0.0
    erasing: Annotated[
        float,
        Range(ge=0, le=1),
        "Probability that a random box of an image is replaced by the mean (arXiv:1708.04896).",
    ] = 0.0
    mixup: Annotated[
        float,
        Range(ge=0, le=1),
        "Concentration of mixup, which adds up two images (arXiv:1710.09412); 1 draws their shares uniformly. 0: none. Only for"
        " objectives that do not read labels.",
    ] = 0.0
    cutmix: Annotated[
        float,
        Range(ge=0, le=1),
        "Concentration of CutMix, which replaces a box by that of another image (arXiv:1905.04899). 0: none. Only for objectives"
        " that do not read labels.",
    ] = 0.0

    @property
    def changes_pixels(self) -> bool:
        """Whether images change apart from crops, flips and mixing."""
        return self.policy != "none" or self.colour_jitter > 0 or self.erasing > 0


@dataclass(frozen=True)
class RandomViews:
    """The drawn views of B images; what is not asked for is None."""

    parameters: ViewParameters
    boxes: BoxDraws | None
    flip: Tensor | None
    operations: StrongViews | None
    colours: tuple[Tensor, Tensor] | None
    """Factors (B, 4) of brightness, contrast, saturation and hue, and their order (B, 4)."""
    erased: tuple[BoxDraws, Tensor] | None
    """Boxes, and whether (B,) each is erased."""

    @classmethod
    def draw(cls, parameters: ViewParameters, crops: bool, size: int, generator: torch.Generator) -> "RandomViews":
        """Draw the views of `size` images; `crops`: with random resized crops and flips."""
        p = parameters
        boxes = BoxDraws.draw(size, generator) if crops else None
        flip = torch.rand(size, generator=generator) < 0.5 if crops else None
        operations = None
        if p.policy == "rand_augment":
            operations = StrongViews.draw(size, p.strength, generator)
        elif p.policy == "trivial_augment":
            operations = StrongViews.draw_trivial(size, generator)
        colours = None
        if p.colour_jitter:
            change = (2 * torch.rand(size, 4, generator=generator) - 1) * p.colour_jitter
            colours = change, torch.rand(size, 4, generator=generator).argsort(1)
        erased = None
        if p.erasing:
            erased = BoxDraws.draw(size, generator), torch.rand(size, generator=generator) < p.erasing
        return cls(p, boxes, flip, operations, colours, erased)

    def at(self, rows: Tensor | slice) -> "RandomViews":
        """The views of some of the images."""
        operations = self.operations and replace(
            self.operations, operation=self.operations.operation[rows], magnitude=self.operations.magnitude[rows]
        )
        return RandomViews(
            self.parameters,
            self.boxes and self.boxes.at(rows),
            None if self.flip is None else self.flip[rows],
            operations,
            self.colours and (self.colours[0][rows], self.colours[1][rows]),
            self.erased and (self.erased[0].at(rows), self.erased[1][rows]),
        )

    def crops(self, sizes_B2: Tensor) -> Tensor | None:
        """What a random resized crop shows of images of these sizes (B, 4); None without crops."""
        return None if self.boxes is None else resized_crops(self.boxes, sizes_B2, self.parameters.least_area)

    def apply(self, image_BCHW: Tensor, mean: tuple[float, ...]) -> Tensor:
        """Change uint8 images that are cropped already; `mean` (C,) of pixels from 0 to 1 fills erased boxes."""
        image = image_BCHW
        if self.flip is not None:
            image = _flipped(image, self.flip)
        if self.operations is not None:
            image = self.operations.apply(image, torch.arange(len(image)))
        if self.colours is not None and image.shape[1] in (1, 3):
            image = _jittered(image, *self.colours)
        if self.erased is not None:
            image = self._erase(image, mean)
        return image

    def _erase(self, image_BCHW: Tensor, mean: tuple[float, ...]) -> Tensor:
        assert self.erased is not None
        draws, chosen = self.erased
        boxes, found = draws.boxes(torch.tensor([image_BCHW.shape[2:]]), ERASED_AREAS, ERASED_RATIOS)
        fill = (torch.tensor(mean) * 255).round().clamp(0, 255).to(image_BCHW)[:, None, None]
        image = image_BCHW.clone()
        for number in (chosen & found).nonzero()[:, 0].tolist():
            top, left, height, width = boxes[number].long().tolist()
            image[number, :, top : top + height, left : left + width] = fill
        return image


def _flipped(image_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """A copy of the images, some of them mirrored left to right."""
    flipped = image_BCHW.clone()
    for number in flip_B.nonzero()[:, 0].tolist():
        flipped[number] = image_BCHW[number].flip(2)
    return flipped


def _jittered(image_BCHW: Tensor, change_B4: Tensor, order_B4: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    images = []
    for image, change, order in zip(image_BCHW, change_B4.tolist(), order_B4.tolist(), strict=True):
        for number in order:
            if number == len(changes):
                image = functional.adjust_hue(image, change[number] * HUE)
            else:
                image = changes[number](image, 1 + change[number])
        images.append(image)
    return torch.stack(images)
