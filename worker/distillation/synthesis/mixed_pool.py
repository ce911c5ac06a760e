"""Pools of which a share is procedural images: drawn by formulas, and pushed towards the teacher's classes.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from worker.distillation.data.samplers import generator
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range
from worker.distillation.source import SourceContext
from worker.distillation.synthesis.pooled import PooledSource, PoolParameters
from worker.distillation.synthesis.procedural_images import FAMILY_IMAGES, ProceduralImages, Refinement


@dataclass(frozen=True)
class MixedPoolParameters(PoolParameters):
    """Parameters of every source with such a pool."""

    # fmt: off
    procedural_share: Annotated[float, Range(ge=0, le=0.9), "Share of the pool's images that are not the source's own, but drawn as those of the source `procedural`."
" The others are made as without it."] = 0.0
    # fmt: on


class MixedPoolSource(PooledSource):
    """Adds procedural images to the pool whenever it adds images of its own. The mixture is ours."""

    class Parameters(MixedPoolParameters):
        """Parameters of every such source."""

    def build(self, context: SourceContext) -> None:
        super().build(context)
        share = self.settings.procedural_share
        if share and context.task != "classification":
            message = "must be 0: procedural images are pushed towards one class each"
            raise SpecError([Problem("/source/procedural_share", message)])
        wanted = round(self.generator_batch * share / (1 - share))
        self.added = min(wanted, self.pool.capacity - self.generator_batch)

    def add(self, image_BCHW: Tensor, logits_BK: Tensor) -> None:
        """Put images of the source's own into the pool, after the procedural ones that belong to them."""
        if self.added:
            image = self.procedural_images(self.added, self.random).to(self.pool.dtype)
            assert self.context.teacher is not None
            with torch.no_grad():
                self.pool.add(image, self.context.teacher(image.float()).logits.float())
        self.pool.add(image_BCHW, logits_BK)

    def procedural_images(self, count: int, random: torch.Generator) -> Tensor:
        """New procedural images (count, C, H, W) of the families that suit the teacher."""
        made, shares = self._families
        return made.mixed(count, shares, Refinement(statistics=1.0), random)

    @cached_property
    def _families(self) -> tuple[ProceduralImages, Tensor]:
        """What draws procedural images, and the share of each family; they depend on teacher and seed alone."""
        teacher, context = self.context.teacher, self.context
        assert teacher is not None
        made = ProceduralImages(lambda x: teacher(x).logits, context.contract, context.classes, context.device)
        return made, made.weights(FAMILY_IMAGES, generator(context.seed, "families"))
