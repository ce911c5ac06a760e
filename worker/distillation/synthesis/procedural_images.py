"""Procedural images for a teacher: families of images, weighted by how well they tell its classes apart, and refined.

No generator is trained. The recipe is ours. Shapes: B images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.families import dead_leaves, mixtures, noise, shapes, strokes
from worker.distillation.synthesis.families.canvas import Canvas, scaled, tints
from worker.distillation.synthesis.families.mixtures import Draw
from worker.distillation.synthesis.generator_losses import balance

FAMILIES: Mapping[str, Draw] = {
    "strokes": strokes.draw,
    "noise": noise.draw,
    "shapes": shapes.draw,
    "dead_leaves": dead_leaves.draw,
    "mixtures": mixtures.draw,
}
GROUNDED = ("strokes", "shapes", "mixtures")
"""Families on a dark ground, or inverted on a bright one. Inverted images of the others would be of the same distribution."""
INVERTED = tuple(f"{name}_inverted" for name in GROUNDED)
CLEARLY = 0.95
"""A ground is left out if the class balances of its families add up to less than this fraction of the other ground's."""
DARK, BRIGHT = 0.45, 0.55
"""Mean of a contract below which images are bright on dark, and above which they are dark on bright."""
COLOURS = 3
"""Channels of images that have colours."""
FAMILY_IMAGES = 512
"""Images of each family by which its share is measured."""
PART = 256
"""Images that are refined at once."""


@dataclass(frozen=True)
class Refinement:
    """How images are pushed towards a class of the teacher.

    `fraction` of the images: each gets a random class and `steps` steps down the gradient of the cross-entropy, averaged over
    3x3 pixels. `move`: the largest root mean square change in all, relative to the range of pixels; an image's is uniform
    from 0 to that. `statistics`: the length of the gradient of the distance from the teacher's BatchNorm statistics, relative
    to that of the cross-entropy; it counts if the teacher has such layers.
    """

    fraction: float = 0.85
    steps: int = 5
    move: float = 0.4
    statistics: float = 0.0


class ProceduralImages:
    """Draws images of all families for a teacher, in its normalised space and within its range of pixels."""

    def __init__(
        self, teacher: Callable[[Tensor], Tensor], contract: InputContract, classes: int, device: torch.device
    ):
        """`teacher` returns the logits (B, K) of images (B, C, H, W) and is frozen."""
        self.teacher = teacher
        self.contract = contract
        self.classes = classes
        self.device = device
        self._canvas = Canvas.within(contract.channels, contract.height, contract.width)
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (contract.mean, contract.std))
        self.low, self.high = contract.pixel_range(device)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The families, such as `strokes` (bright on dark) and `strokes_inverted`. Which of the two there are depends on the
        contract's mean, both if it is near 0.5 or 0, where it says nothing."""
        mean = float(self._mean.mean())
        known = mean > 0
        dark, bright = not known or mean < BRIGHT, not known or mean > DARK
        plain = [name for name in FAMILIES if dark or name not in GROUNDED]
        return (*plain, *(INVERTED if bright else ()))

    def draw(self, kind: str, count: int, random: torch.Generator) -> Tensor:
        """Images (count, C, H, W) of one family, drawn on the CPU, normalised."""
        family, inverted = kind.removesuffix("_inverted"), kind.endswith("_inverted")
        image = scaled(FAMILIES[family](count, self._canvas, random), self.contract.height, self.contract.width)
        if self.contract.channels == COLOURS:  # the light of each image
            image = (image * (1 + tints(count, COLOURS, random)[:, :, None, None])).clamp(0, 1)
        return (((1 - image if inverted else image) - self._mean) / self._std).to(self.device)

    @torch.no_grad()
    def weights(self, images: int, random: torch.Generator) -> Tensor:
        """The share (kinds,) of each family: `(class balance³ * deviation of the logits)²`, from `images` of each.

        Where the contract leaves the ground open, the one on which the families tell clearly fewer classes apart gets no share.
        """
        usefulness, balances = [], []
        for kind in self.kinds:
            logits = torch.cat([self.teacher(part) for part in self.draw(kind, images, random).split(PART)]).float()
            balances.append(float(balance(logits)))
            usefulness.append(balances[-1] ** 3 * float(logits.std(dim=0).mean()))
        squared = torch.tensor(usefulness).nan_to_num(0.0, 0.0, 0.0).square() + 1e-12
        squared = squared * ~self._left_out(torch.tensor(balances))
        return squared / squared.sum()

    def _left_out(self, balances: Tensor) -> Tensor:
        """Which kinds (kinds,) are on the ground that tells clearly fewer classes apart, if there are two."""
        grounds = (GROUNDED, INVERTED)
        dark, bright = (torch.tensor([kind in ground for kind in self.kinds]) for ground in grounds)
        if dark.any() and bright.any():
            told, told_inverted = float(balances[dark].sum()), float(balances[bright].sum())
            if told_inverted < CLEARLY * told:
                return bright
            if told < CLEARLY * told_inverted:
                return dark
        return torch.zeros_like(dark)

    def mixed(self, count: int, weights: Tensor, refinement: Refinement, random: torch.Generator) -> Tensor:
        """Images (count, C, H, W) of all families by these shares, in random order, a fraction of them refined."""
        numbers = torch.multinomial(weights, count, replacement=True, generator=random).bincount(minlength=len(weights))
        drawn = [self.draw(kind, size, random) for kind, size in zip(self.kinds, numbers.tolist(), strict=True) if size]
        image = torch.cat(drawn)[torch.randperm(count, generator=random).to(self.device)]
        changed = round(refinement.fraction * count)
        target = torch.randint(self.classes, (changed,), generator=random).to(self.device)
        move = (refinement.move * torch.rand(changed, generator=random)).to(self.device)
        parts = zip(image[:changed].split(PART), target.split(PART), move.split(PART), strict=True)
        return torch.cat(
            [*(self.refined(*part, refinement.steps, refinement.statistics) for part in parts), image[changed:]]
        )

    def refined(self, image: Tensor, target_B: Tensor, move_B: Tensor, steps: int, statistics: float = 0.0) -> Tensor:
        """The images after `steps` equal steps towards the target classes; each moves by `move` of the range in all."""
        span = (self.high - self.low).expand_as(image[:1]).square().mean().sqrt()
        length = move_B[:, None, None, None] * span * image.shape[1:].numel() ** 0.5 / steps
        for _ in range(steps):
            direction = self._direction(image.detach(), target_B, statistics)
            image = torch.clamp(image.detach() - length * direction, self.low, self.high)
        return image.detach()

    def _direction(self, image: Tensor, target_B: Tensor, statistics: float) -> Tensor:
        """The smoothed gradient of each image (B, C, H, W), of length 1."""
        image.requires_grad_()
        distance = BatchStatistics()
        reader = distance.reading() if statistics else None
        with torch.enable_grad():
            with reader or nullcontext():
                logits = self.teacher(image).float()
            loss = F.cross_entropy(logits, target_B, reduction="sum")
            matches = reader is not None and bool(reader.found)
            (gradient,) = torch.autograd.grad(loss, image, retain_graph=matches)
            direction = _unit(F.avg_pool2d(gradient, 3, stride=1, padding=1))
            if matches:
                (gradient,) = torch.autograd.grad(distance.distance(), image)
                direction = _unit(direction + statistics * _unit(F.avg_pool2d(gradient, 3, stride=1, padding=1)))
        return direction


def _unit(x: Tensor) -> Tensor:
    """Each image (B, C, H, W) divided by its Euclidean norm."""
    return x / x.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
