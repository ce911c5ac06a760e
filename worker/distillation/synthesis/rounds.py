"""Sources that work in rounds: each round optimises a batch of images for some steps and then adds it to the pool.

The steps of a round are generator steps, taken between the students' (`Source.generator_steps`), so that a run can
stop, save and continue within a round. Shapes: B batch, C channels, H height, W width, Z latent size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from worker.distillation.data.transfers import sent
from worker.distillation.errors import Diverged, Problem, SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import Range
from worker.distillation.source import SourceContext, SourceNeeds
from worker.distillation.synthesis.augmentation import random_roll
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics, check_kept
from worker.distillation.synthesis.collapse import corrected
from worker.distillation.synthesis.families.canvas import scaled
from worker.distillation.synthesis.image_loss import AGAINST_STUDENTS, ImageLoss, Seen, Weights
from worker.distillation.synthesis.live import accepts
from worker.distillation.synthesis.mixed_pool import MixedPoolParameters, MixedPoolSource
from worker.distillation.synthesis.round_watch import RoundWatch

FEW_CLASSES_HINT = "raise the source's one_hot_weight or iterations, or reduce its statistics_weight"


@dataclass(frozen=True)
class RoundParameters(MixedPoolParameters):
    """Parameters of every source that works in rounds."""

    # fmt: off
    iterations: Annotated[int | None, Range(ge=1, le=100_000), "Number of optimisation steps in a round. If null: the preset's."] = None
    initial_rounds: Annotated[int | None, Range(ge=1, le=10_000), "Number of rounds before the students' first step, without the terms that read the students. If null:"
" the preset's."] = None
    student_steps_per_round: Annotated[int | None, Range(ge=1), "Number of student steps between two rounds. If null: the preset's."] = None
    rounds: Annotated[int | None, Range(ge=1), "Maximum number of rounds in a stage, after which batches come from the pool alone. If null: the "
"preset's, which may be unlimited."] = None
    one_hot_weight: Annotated[float, Range(ge=0), "Weight of the cross-entropy with the target classes."] = 1.0
    statistics_weight: Annotated[float, Range(ge=0), "Weight of the distance from the teacher's BatchNorm statistics."] = 10.0
    restarts: Annotated[int, Range(ge=0, le=10), "Maximum number of restarts of a stage whose images collapse. Each restart doubles the weight of the "
"cross-entropy with the target classes and halves those of the terms against the students. The "
"default is ours."] = 2
    shift: Annotated[int, Range(ge=0, le=64), "Maximum number of pixels by which images are rolled at random before the teacher reads them."] = 2
    flip: Annotated[bool, "Also flip the images left to right at random. Leave off for digits and text. The default is ours."] = False
    # fmt: on


class RoundSource(MixedPoolSource):
    """Optimises the source of a batch of images, such as pixels or a generator, round after round.

    A subclass creates what is optimised, and `self.optimizer`, in `prepare`; starts a round in `begin`; and returns its
    images from `made`. The pool gets the images of the step with the lowest loss.
    """

    needs = SourceNeeds(teacher=True, teacher_gradient=True, batch_norm=True)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    optimizer: torch.optim.Optimizer

    class Parameters(RoundParameters):
        """Parameters of every such source."""

    def weights(self) -> Weights:
        """Weights of the terms of the images' loss."""
        raise NotImplementedError

    def statistics(self) -> BatchStatistics:
        """The distance from the teacher's BatchNorm statistics."""
        return BatchStatistics()

    def prepare(self) -> None:
        """Create what is optimised, and the optimiser."""
        raise NotImplementedError

    def begin(self, number: int) -> None:
        """Start round `number`; its target classes are in `self.target` (B,)."""
        raise NotImplementedError

    def made(self) -> Tensor:
        """The round's current images, with gradient: (B, C, H, W), or smaller."""
        raise NotImplementedError

    def further_terms(self, image: Tensor, seen: Seen) -> dict[str, Tensor]:
        """Weighted terms of the source's own, added to those of the image loss."""
        return {}

    def descend(self, loss: Tensor, step: int) -> None:
        """Update along the gradient of the loss, in step `step` of the round."""
        update(loss, self.optimizer)

    def check_teacher(self, teacher: Tapped, example: Tensor) -> None:
        if not self.weights().any("one_hot", "batch_statistics"):
            words = "must be greater than 0 if statistics_weight is 0: no other term sets what the images show"
            raise SpecError([Problem("/source/one_hot_weight", words)])
        if self.settings.statistics_weight:
            check_kept(teacher, example)

    def build(self, context: SourceContext) -> None:
        super().build(context)
        assert context.teacher is not None
        weights = corrected(self.weights(), context.restarts, balancing="one_hot")
        self.image_loss = ImageLoss(context.teacher, weights, self.precision, context.device, self.statistics())
        self.alone = replace(weights, **dict.fromkeys(AGAINST_STUDENTS, 0.0))
        self.iterations = self.chosen("iterations")
        self.rounds_alone = self.generator_steps(0) // self.iterations
        shape = (self.generator_batch, context.contract.channels, context.contract.height, context.contract.width)
        self.target = torch.zeros(self.generator_batch, dtype=torch.int64, device=context.device)
        self.best = torch.zeros(shape, device=context.device)
        self.lowest = torch.full((), torch.inf, device=context.device)
        self.watch = RoundWatch(self.iterations, FEW_CLASSES_HINT)
        self.terms: dict[str, Tensor] = {}
        self.prepare()

    def generator_steps(self, number: int) -> int:
        """Whole rounds: those before the students' first step, and one more for each `student_steps_per_round`."""
        rounds = self.chosen("initial_rounds") + number // self.chosen("student_steps_per_round")
        return min(rounds, self.chosen("rounds") or rounds) * self.chosen("iterations")

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        """One step of a round; the last one adds the images to the pool.

        Raises:
            Diverged: the loss was never finite in the round.
            Collapsed: see `RoundWatch`.
        """
        round_, step = divmod(number, self.iterations)
        if step == 0:
            self.target = sent(self.classes(self.random), self.context.device)
            self.lowest = torch.full_like(self.lowest, torch.inf)
            self.begin(round_)
        self._optimise(step, students if round_ >= self.rounds_alone else {})
        if step == self.iterations - 1:
            self._finish(round_)

    def metrics(self) -> dict[str, Tensor | float]:
        """The last step's unweighted terms and, for the last round's images, the share for which the teacher
        predicts the target class and the other metrics of the collapse detection."""
        shown = self.terms | self.watch.metrics()
        return {f"generator/{name}": value for name, value in shown.items()} | {
            "generator/bf16": float(self.precision == torch.bfloat16),
            "generator/restarts": float(self.context.restarts),
            **super().metrics(),
        }

    def state_dict(self) -> dict[str, Any]:
        statistics = self.image_loss.statistics.state_dict() if self.image_loss.statistics else {}
        round_ = {
            "target": self.target,
            "lowest": self.lowest,
            "terms": self.terms,
            **self.watch.state_dict(),
        }
        return {
            "optimizer": self.optimizer.state_dict(),
            "round": round_ | {"statistics": statistics},
            "best": self.best,
        } | super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.context.device
        self.optimizer.load_state_dict(state["optimizer"])
        round_ = state["round"]
        self.target, self.lowest = (round_[name].clone().to(device) for name in ("target", "lowest"))
        self.watch.load_state_dict(round_, device)
        self.terms = {name: term.to(device) for name, term in round_["terms"].items()}
        self.best = state["best"].clone().to(device)
        if self.image_loss.statistics:
            self.image_loss.statistics.load_state_dict(round_["statistics"], device)
        super().load_state_dict(state)

    def _optimise(self, step: int, students: Mapping[str, nn.Module]) -> None:
        weights = self.image_loss.weights if students else self.alone
        height, width = self.best.shape[2:]
        with torch.enable_grad():
            with self.image_loss.autocast():
                image = self.made()
            if not self._accept(image, students):
                image = scaled(image, height, width)
            view = random_roll(image, self.settings.shift, self.settings.flip, self.random)
            seen, terms = self.image_loss.see(view, students, self.target, weights)
            further = self.further_terms(image, seen)
            loss = self.image_loss.total(terms, weights) + sum(further.values())
        better = loss.detach() < self.lowest
        self.lowest = torch.where(better, loss.detach(), self.lowest)
        self.best = torch.where(better, scaled(image.detach(), height, width), self.best)
        self.terms = {name: term.detach() for name, term in (terms | further).items()}
        self.descend(loss, step)

    def _accept(self, image: Tensor, students: Mapping[str, nn.Module]) -> bool:
        """Whether teacher and students accept images of this size."""
        if image.shape == self.best.shape:
            return True
        return all(accepts(network, image[:2].detach()) for network in (self.image_loss.teacher, *students.values()))

    def _finish(self, round_: int) -> None:
        if not bool(self.lowest.isfinite()):
            words = f"the synthetic images became NaN or infinite in round {round_}"
            raise Diverged(words, hint="reduce the source's learning rates")
        image = self.best.to(self.pool.dtype)
        logits = self.image_loss.label(image.float())
        self.watch.see(round_, image, logits, self.target)
        self.keep(round_, image, logits)
        if self.image_loss.statistics:
            self.image_loss.statistics.remember()

    def keep(self, round_: int, image: Tensor, logits: Tensor) -> None:
        """Put the images of a round into the pool."""
        self.add(image, logits)


def update(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    """One step of each optimiser along the gradient of a loss with respect to its own parameters only."""
    parameters = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
