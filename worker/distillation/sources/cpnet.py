"""CPNet: a generator that approximates the teacher's inverse."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor, nn

from worker.distillation.introspection.taps import Tapped, penultimate
from worker.distillation.parameters import Range
from worker.distillation.randomness import seed_for
from worker.distillation.synthesis.coupled_generator import (
    CoupledGenerator,
    CoupledStatistics,
    InverseClassifier,
    coupling,
    inverse_classifier,
    map_numbers,
)
from worker.distillation.synthesis.embedded import EmbeddedParameters, EmbeddedSource
from worker.distillation.synthesis.image_loss import Seen


class Cpnet(EmbeddedSource):
    """Trains a generator whose hidden maps match the teacher's feature maps for the generated images, so that generator and
    teacher together are an autoencoder of the classes.

    Chen et al., "Coupling the Generator with Teacher for Effective Data-Free Knowledge Distillation", ICCV 2025. The maps are
    the inputs of the teacher's last BatchNorm layer at each resolution, renormalised to its running statistics. While students
    train, features of the teacher also move away from the ones that its classifier maps to the target. Classes are embedded as
    in `nayer`. The preset `paper` is that of the authors' scripts for CIFAR-10 (LannCX/CPNet, `cpnet_100.sh`; CIFAR-100 has 40
    iterations); their students learn by SGD with a learning rate of 0.2 at temperature 20. Not implemented: the CutMix,
    colours and flips of the images that the teacher reads, which are shifted only.
    """

    presets = {
        "fast": {
            "generator_batch": 256, "iterations": 20, "initial_rounds": 6, "student_steps_per_round": 50, "rounds": None,
            "generator_life": 20, "warm_up_generator_life": None, "pool_images": 32_768, "augmentation_probability": 0.5,
            "latent": 256, "layer": "uniform", "statistics_momentum": 0.0, "generator_output": "contract",
        },
        "paper": {
            "generator_batch": 400, "iterations": 30, "initial_rounds": 200, "student_steps_per_round": 200, "rounds": None,
            "generator_life": 20, "warm_up_generator_life": 100, "pool_images": 65_536, "augmentation_probability": 0.5,
            "latent": 1000, "layer": "normal", "statistics_momentum": 0.9, "generator_output": "sigmoid",
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(EmbeddedParameters):
        # fmt: off
        statistics_weight: Annotated[float, Range(gt=0), "Weight of the distance from the teacher's BatchNorm statistics; published: 10."] = 10.0
        coupling_weight: Annotated[float, Range(ge=0), "Weight of the squared differences between the generator's maps and the teacher's; published: 1."] = 1.0
        alignment_weight: Annotated[float, Range(ge=0), "Weight of the alignment of features with the target's, while students train; published: 1.33."] = 1.33
        # fmt: on

    def statistics(self) -> CoupledStatistics:
        assert self.context.teacher is not None
        self.shapes = map_numbers(self.context.teacher, self.context.contract.blank(self.context.device))
        return CoupledStatistics(tuple(self.shapes), self.chosen("statistics_momentum"))

    def check_teacher(self, teacher: Tapped, example: Tensor) -> None:
        map_numbers(teacher, example)

    def prepare(self) -> None:
        super().prepare()
        assert self.context.teacher is not None
        self.maps: list[Tensor] = []
        self.tap = penultimate(self.context.teacher)
        self.image_loss.teacher.request([self.tap])

    def new_generator(self, *of: int | str) -> nn.Module:
        context = self.context
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed_for(context.seed, "generator", *of))
            shapes = list(reversed(self.shapes.values()))
            made = CoupledGenerator(context.contract, self.chosen("latent"), shapes, self.chosen("generator_output"))
        return made.to(context.device)

    @cached_property
    def inverse(self) -> InverseClassifier:
        """The inverse of the teacher's classifier."""
        return inverse_classifier(self.image_loss.teacher, self.tap)

    def made(self) -> Tensor:
        assert isinstance(self.generator, CoupledGenerator)
        image, self.maps = self.generator.with_maps(self.layer(self.embedding[self.target]))
        return image

    def further_terms(self, image: Tensor, seen: Seen) -> dict[str, Tensor]:
        assert isinstance(self.image_loss.statistics, CoupledStatistics)
        maps, self.maps = self.maps, []
        terms = {"coupling": self.settings.coupling_weight * coupling(maps, self.image_loss.statistics.take())}
        if seen.student_logits:
            feature = seen.outputs.taps[self.tap].float()
            feature = feature.flatten(2).mean(dim=2) if feature.ndim > 2 else feature
            terms["alignment"] = self.settings.alignment_weight * self.inverse.alignment(feature, self.target)
        return terms
