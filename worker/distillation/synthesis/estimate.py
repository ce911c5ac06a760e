"""An estimate, without data, of the agreement of a student with its teacher on real images.

Shapes: B images, C channels, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.samplers import generator
from worker.distillation.synthesis.procedural_images import PART, ProceduralImages, Refinement

# Images that are drawn: IMAGES of up to PIXELS pixels, fewer of larger ones, since each is refined.
IMAGES = 1024
LEAST_DRAWN = 128
PIXELS = 64 * 64
FAMILY_IMAGES = 128
"""Images of each family by which its share is measured."""
MOVE = 0.3
"""Largest change of an image by its refinement; more makes images on which teacher and student agree too easily."""
CONFIDENT = 0.8
"""Only images for which the teacher's confidence is above this count."""
LEAST_IMAGES = 30
# Estimates below which a student is poor, doubtful and fair.
POOR = 0.70
FAIR = 0.85
GOOD = 0.90
WARNING = (
    "the student probably did not learn what its teacher knows: they agree on an estimated {agreement:.0%}, by {images} held-out "
    "procedural images; give images, even without labels (the source `substitute`), or more steps, or a student of the teacher's "
    "own family"
)
NOTE = "student and teacher agree on an estimated {agreement:.0%}, by {images} held-out procedural images: the student may lack something"


@dataclass(frozen=True)
class Estimate:
    """`agreement`: share of the `images` on which the teacher is confident that student and teacher classify alike."""

    agreement: float
    images: int

    @property
    def warning(self) -> str:
        """A warning for the job's user if the estimate is low, else empty."""
        return WARNING.format(agreement=self.agreement, images=self.images) if self.agreement < FAIR else ""

    @property
    def note(self) -> str:
        """A note for the report if the estimate is moderate, else empty."""
        moderate = FAIR <= self.agreement < GOOD
        return NOTE.format(agreement=self.agreement, images=self.images) if moderate else ""


class Estimator:
    """Estimates students of one teacher on the same refined procedural images, of the families that suit the teacher."""

    @torch.no_grad()
    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        contract: InputContract,
        classes: int,
        seed: int,
        device: torch.device,
    ):
        """`teacher` returns the logits (B, K) of images (B, C, H, W). The images have a random stream of their own, so that no
        training with the same `seed` saw them; only those on which the teacher is confident are kept."""
        made, random = ProceduralImages(teacher, contract, classes, device), generator(seed, "estimate")
        count = max(LEAST_DRAWN, min(IMAGES, IMAGES * PIXELS // (contract.height * contract.width)))
        shares = made.weights(min(FAMILY_IMAGES, count), random)
        image = made.mixed(count, shares, Refinement(move=MOVE), random)
        probability = torch.cat([teacher(part) for part in image.split(PART)]).float().softmax(dim=1)
        confident = probability.amax(dim=1) > CONFIDENT
        self.image = image[confident]
        self.label = probability.argmax(dim=1)[confident]

    @torch.no_grad()
    def estimate(self, student: Callable[[Tensor], Tensor]) -> Estimate | None:
        """The agreement of a student, which returns logits too; None if the teacher is confident on too few images."""
        if len(self.image) < LEAST_IMAGES:
            return None
        chosen = torch.cat([student(part) for part in self.image.split(PART)]).argmax(dim=1)
        return Estimate(float((chosen == self.label).float().mean()), len(self.image))
