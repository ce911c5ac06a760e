"""CMI: contrastive model inversion. New images must differ from all earlier ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from worker.distillation.introspection.taps import penultimate
from worker.distillation.parameters import Range
from worker.distillation.randomness import seed_for
from worker.distillation.synthesis.augmentation import random_affine
from worker.distillation.synthesis.held import HeldOutSource
from worker.distillation.synthesis.image_loss import Seen
from worker.distillation.synthesis.instances import FeatureMemory, Head, contrast
from worker.distillation.synthesis.latents import BETAS, GeneratorParameters, LatentSource, load, state_of
from worker.distillation.synthesis.rounds import update


class Cmi(HeldOutSource, LatentSource):
    """Trains a new generator in every round, with a contrastive loss that makes its images differ from each other and
    from those of earlier rounds.

    Fang et al., "Contrastive Model Inversion for Data-Free Knowledge Distillation", arXiv:2105.08584. The embedding of
    an image is the input of the teacher's classifier, mapped by a head that is trained too. For each image, the second
    view must be the most similar among all other images' views and the memory. The memory holds the teacher's features,
    not embeddings of them, which would become outdated as the head is trained; the second view is a random affine one;
    both are ours. The authors' students take 400 steps a round, by SGD with a learning rate of 0.1 at temperature 20.
    """

    paper = "arXiv:2105.08584"
    presets = {
        "fast": {
            "generator_resolution": "half", "generator_width": 32, "generator_output": "contract", "generator_batch": 128,
            "iterations": 60, "initial_rounds": 6, "student_steps_per_round": 100, "rounds": 30, "pool_images": 8_192,
            "augmentation_probability": 0.5, "latent": 256, "memory": 4_096, "negatives": 512,
        },
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "sigmoid", "generator_batch": 256,
            "iterations": 500, "initial_rounds": 10, "student_steps_per_round": 400, "rounds": None, "pool_images": 65_536,
            "augmentation_probability": 0.5, "latent": 256, "memory": 40_960, "negatives": 4_096,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        latent_learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the latents. The default is ours."] = 1e-2
        statistics_weight: Annotated[float, Range(ge=0), "Weight of the distance from the teacher's BatchNorm statistics; published: 1."] = 1.0
        one_hot_weight: Annotated[float, Range(ge=0), "Weight of the cross-entropy with the target classes; published: 0.5 to 1."] = 0.5
        contrast_weight: Annotated[float, Range(ge=0), "Weight of the contrastive loss; published: 0.8."] = 0.8
        contrast_temperature: Annotated[float, Range(gt=0), "Temperature of the contrastive loss; published: 0.1 to 0.2."] = 0.2
        embedding: Annotated[int, Range(ge=2, le=4096), "Dimension of an image's embedding; published: 256."] = 256
        memory: Annotated[int | None, Range(ge=1), "Number of earlier images whose features are kept, limited by `pool_megabytes`. If null: 4096 (fast) "
"or 40960 (paper)."] = None
        negatives: Annotated[int | None, Range(ge=1), "Number of features drawn from the memory in each step. If null: 512 (fast) or 4096 (paper)."] = None
        # fmt: on

    def prepare(self) -> None:
        chosen, device = self.settings, self.context.device
        self.generator = self.new_generator(0)
        self.latent = self.new_latent()
        groups: list[dict[str, Any]] = [
            {"params": self.generator.parameters()},
            {"params": [self.latent], "lr": chosen.latent_learning_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, chosen.generator_learning_rate, BETAS)
        self.tap = penultimate(self.image_loss.teacher)
        self.image_loss.teacher.request([self.tap])
        dimensions = torch.Size(self.image_loss.teacher.map.inputs[self.tap]).numel()
        most = chosen.pool_megabytes * 2**20 // (4 * dimensions)
        self.memory = FeatureMemory(max(1, min(self.chosen("memory"), most)), dimensions, device)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed_for(self.context.seed, "head"))
            self.head = Head(dimensions, chosen.embedding).to(device)
        self.head_optimizer = torch.optim.Adam(self.head.parameters(), chosen.generator_learning_rate)

    @torch.no_grad()
    def begin(self, number: int) -> None:
        self.generator.load_state_dict(self.new_generator(number).state_dict())
        self.latent.copy_(self.noise(self.generator_batch, self.random))
        self.optimizer.state.clear()

    def made(self) -> Tensor:
        return self.generator(self.latent)

    def further_terms(self, image: Tensor, seen: Seen) -> dict[str, Tensor]:
        if not self.settings.contrast_weight:
            return {}
        feature = seen.outputs.taps[self.tap].flatten(1).float()
        view = random_affine(
            image, self.random
        )  # in full precision: lower precision would round the grid to fractions of a pixel
        with self.image_loss.autocast():
            other = self.image_loss.teacher(view).taps[self.tap].flatten(1).float()
        negatives = self.memory.draw(self.chosen("negatives"), self.random)
        embeddings = self.head(torch.cat([feature, other, negatives]))
        mine, theirs, others = embeddings.split([len(feature), len(other), len(negatives)])
        loss = contrast(mine, theirs, others, self.settings.contrast_temperature)
        return {"contrast": self.settings.contrast_weight * loss}

    def descend(self, loss: Tensor, step: int) -> None:
        heads = [self.head_optimizer] if self.settings.contrast_weight else []
        update(loss, self.optimizer, *heads)

    def keep(self, round_: int, image: Tensor, logits: Tensor) -> None:
        super().keep(round_, image, logits)
        with torch.no_grad():
            self.memory.add(self.image_loss.teacher(image.float()).taps[self.tap].flatten(1))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | state_of(self._parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        load(self._parts(), state)

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "latent": self.latent,
            "head": self.head,
            "head_optimizer": self.head_optimizer,
            "memory": self.memory,
        }
