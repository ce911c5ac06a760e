"""Round sources whose generator reads embeddings of the classes through a layer of random weights.

Shapes: B batch, E dimensions of an embedding, K classes, C channels, H height, W width.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import EmbeddingsFile, Range
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.latents import BETAS, LatentParameters, LatentSource, load, state_of
from worker.distillation.synthesis.noisy_layer import NoisyLayer, Spread
from worker.distillation.uploads import class_embeddings

LEAST_SIZE = 64
"""Dimension of orthogonal embeddings."""


@dataclass(frozen=True)
class EmbeddedParameters(LatentParameters):
    """Parameters of every such source."""

    # fmt: off
    embeddings: Annotated[EmbeddingsFile | None, "File with a vector for each class, such as a text encoder's embedding of its name. If null: "
"orthogonal vectors."] = None
    embedding_size: Annotated[int | None, Range(ge=2, le=8192), "Dimension of the orthogonal embeddings. If null: 64, or the number of classes if that is more."] = None
    generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for generator and layer; published: 0.004."] = 4e-3
    generator_life: Annotated[int | None, Range(ge=1), "Number of rounds after which the generator is replaced by a new one; published: 10 epochs of 2 "
"rounds. If null: the preset's."] = None
    warm_up_generator_life: Annotated[int | None, Range(ge=1), "The same for the rounds before the students' first step, after which the generator is replaced too; "
"published: 10 epochs of 10 rounds. If null: the preset's, which may be that all rounds count alike."] = None
    layer: Annotated[Spread | None, "Weights of the layer: as torch draws those of linear layers (`uniform`), or from N(0, 1) without a "
"bias (`normal`). If null: the preset's."] = None
    statistics_momentum: Annotated[float | None, Range(ge=0, lt=1), "Weight of earlier batches in the batch statistics. If null: the preset's."] = None
    one_hot_weight: Annotated[float, Range(ge=0), "Weight of the cross-entropy with the target classes; published: 0.5."] = 0.5
    boundary_weight: Annotated[float, Range(ge=0), "Weight of KL(teacher || student) on images for which both predict the same class, which the images "
"maximise; published: 1.33."] = 1.33
    # fmt: on


class EmbeddedSource(LatentSource):
    """Passes each class's embedding to a generator through a linear layer that is drawn anew every round: the layer is
    the source of randomness, and the embedding sets the class of the image.

    One layer serves one image of every class; a batch has one layer for each such set.
    """

    class Parameters(EmbeddedParameters):
        """Parameters of every such source."""

    def statistics(self) -> BatchStatistics:
        return BatchStatistics(momentum=self.chosen("statistics_momentum"))

    def prepare(self) -> None:
        context = self.context
        self.embedding = self._embedding()
        self.generator = self.new_generator(0)
        sets, images = self._sets(), min(self.generator_batch, context.classes)
        layer = NoisyLayer(self.embedding.shape[1], self.chosen("latent"), sets, images, self.chosen("layer"))
        self.layer = layer.to(context.device)
        both = [*self.generator.parameters(), *self.layer.parameters()]
        self.optimizer = torch.optim.Adam(both, self.settings.generator_learning_rate, BETAS)

    def begin(self, number: int) -> None:
        if number and self._age(number) == 0:
            self.generator.load_state_dict(self.new_generator(number).state_dict())
            self.layer.norm.reset_parameters()
        self.layer.draw(self.random)
        self.optimizer.state.clear()

    def made(self) -> Tensor:
        return self.generator(self.layer(self.embedding[self.target]))

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """Images of the current generator, with new layers."""
        generator, layer = deepcopy(self.generator), deepcopy(self.layer)
        parts, classes = [], self.classes(random).to(self.context.device)
        with torch.no_grad():
            for _ in range(-(-count // self.generator_batch)):
                layer.draw(random)
                parts.append(generator(layer(self.embedding[classes])))
        return torch.cat(parts)[:count]

    def classes(self, random: torch.Generator) -> Tensor:
        """Sets of one image of every class, all in the same random order; the last set may be incomplete."""
        order = torch.randperm(self.context.classes, generator=random)
        return order.repeat(self._sets())[: self.generator_batch]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | state_of(self._parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        load(self._parts(), state)

    def _embedding(self) -> Tensor:
        """One vector for each class (K, E)."""
        context, given = self.context, self.settings.embeddings
        if given is not None:
            if given not in context.files:
                raise SpecError([Problem("/source/embeddings", f"the job has no file {given!r}")])
            return class_embeddings.load(context.files[given], context.classes, context.device)
        size = self.settings.embedding_size or max(LEAST_SIZE, context.classes)
        return class_embeddings.orthogonal(context.classes, size, context.seed).to(context.device)

    def _age(self, number: int) -> int:
        """For how many rounds the generator of round `number` has been trained."""
        life, alone = self.chosen("generator_life"), self.chosen("warm_up_generator_life")
        if alone is None:
            return int(number % life)
        return int(number % alone if number < self.rounds_alone else (number - self.rounds_alone) % life)

    def _sets(self) -> int:
        return -(-self.generator_batch // self.context.classes)

    def _parts(self) -> dict[str, Any]:
        return {"generator": self.generator, "layer": self.layer}
