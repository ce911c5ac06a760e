"""Metadata: optimise images until the teacher's activations match statistics of the real data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.errors import Diverged, Problem, SpecError
from worker.distillation.introspection.taps import Tapped, penultimate
from worker.distillation.parameters import Range, StatisticsFile
from worker.distillation.source import SourceContext, SourceNeeds
from worker.distillation.synthesis.pooled import PooledSource, PoolParameters
from worker.distillation.synthesis.round_watch import RoundWatch
from worker.distillation.uploads.activation_statistics import ActivationStatistics

FEW_CLASSES_HINT = "raise the source's iterations, and check that the statistics are of this teacher's classes"


class Metadata(PooledSource):
    """Draws target activations by class from stored statistics of the real data, and optimises noise into images that
    produce them; all images are made before the students' first step.

    Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural Networks", arXiv:1710.07535, with the
    objectives of the top layer, of all layers, and of all layers with dropout; not the spectral ones. The top layer is
    here the input of the teacher's classifier. Statistics share their random numbers across layers, unlike the paper's.
    The preset `paper` has the authors' steps, and batches for each class. The images of one more round are withheld
    from the students, to score them. The source needs statistics of the real data; sources that read the teacher's
    BatchNorm statistics do not.
    """

    paper = "arXiv:1710.07535"
    needs = SourceNeeds(teacher=True, teacher_gradient=True, files=("statistics",))
    presets = {
        "fast": {
            "generator_batch": 256, "iterations": 60, "rounds": 16, "pool_images": 32_768, "augmentation_probability": 0.5,
        },
        "paper": {
            "generator_batch": 256, "iterations": 1_000, "rounds": 300, "pool_images": 131_072, "augmentation_probability": 0.0,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(PoolParameters):
        # fmt: off
        statistics: Annotated[StatisticsFile | None, "File of the teacher's activation statistics on real data; required."] = None
        match: Annotated[Literal["top_layer", "all_layers"], "Activations to match: the input of the classifier, or all taps of the statistics. The loss of a tap is "
            "its mean squared difference."] = "top_layer"
        dropout: Annotated[float, Range(ge=0, lt=1), "Share of the activations that is left out at random in each step. The default is ours."] = 0.0
        iterations: Annotated[int | None, Range(ge=1, le=100_000), "Steps of Adam for each batch of images. If null: 60 (fast, ours) or 1000 (paper)."] = None
        rounds: Annotated[int | None, Range(ge=1, le=100_000), "Number of batches of images, each of all classes. If null: 16 (fast, ours) or 300 (paper)."] = None
        learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam, for pixels from 0 to 1; published: 0.07."] = 0.07
        initial_mean: Annotated[float, "Mean of the initial pixels, from 0 to 1; published: 0.44."] = 0.44
        initial_std: Annotated[float, Range(ge=0), "Standard deviation of the initial pixels; published: 0.29."] = 0.29
        # fmt: on

    def build(self, context: SourceContext) -> None:
        """Read the statistics, and make an empty batch of images.

        Raises:
            SpecError: the statistics are missing, or do not match this teacher.
        """
        super().build(context)
        assert context.teacher is not None
        self.teacher = context.teacher
        path = context.files.get(self.settings.statistics or "")
        if path is None:
            raise SpecError([Problem("/source/statistics", "is required: give the id of a file of statistics")])
        self.statistics = ActivationStatistics.load(path, context.device)
        self.taps = self._matched(self.teacher, context.classes)
        self.teacher.request(self.taps, "/source/statistics")
        self.iterations = self.chosen("iterations")
        self.rounds = self.chosen("rounds")
        contract = context.contract
        self.mean, self.std = (
            torch.tensor(values, device=context.device).view(-1, 1, 1) for values in (contract.mean, contract.std)
        )
        shape = (self.generator_batch, contract.channels, contract.height, contract.width)
        self.pixels = nn.Parameter(torch.zeros(shape, device=context.device))
        self.optimizer = torch.optim.Adam([self.pixels], self.settings.learning_rate)
        self.wanted = {
            tap: torch.zeros(self.generator_batch, self.statistics.taps[tap].mean.shape[1], device=context.device)
            for tap in self.taps
        }
        self.target = torch.zeros(self.generator_batch, dtype=torch.int64, device=context.device)
        self.watch = RoundWatch(self.iterations, FEW_CLASSES_HINT)
        self.loss = torch.zeros((), device=context.device)
        self.held: Tensor | None = None

    def generator_steps(self, number: int) -> int:
        return (1 + self.chosen("rounds")) * self.chosen("iterations")

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        """One step of Adam; the last of a round adds its images to the pool.

        Raises:
            Diverged: the loss is not finite.
            Collapsed: see `RoundWatch`. A restart would change nothing, since no weights apply to these images.
        """
        round_, step = divmod(number, self.iterations)
        if step == 0:
            self._begin()
        self._optimise()
        if step < self.iterations - 1:
            return
        if not bool(self.loss.isfinite()):
            raise Diverged(
                f"the synthetic images became NaN or infinite in round {round_}", "lower source/learning_rate"
            )
        image = self._normalised().detach()
        kept = image.to(self.pool.dtype)
        with torch.no_grad():
            logits = self.teacher(kept.float()).logits
        self.watch.see(round_, image, logits, self.target)
        if round_ == 0:
            self.held = image
        else:
            self.pool.add(kept, logits)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """The withheld images, at most as many as a round has."""
        assert self.held is not None
        return self.held[:count]

    def metrics(self) -> dict[str, Tensor | float]:
        watched = {f"generator/{name}": value for name, value in self.watch.metrics().items()}
        return {"generator/activation_distance": self.loss} | watched | super().metrics()

    def state_dict(self) -> dict[str, Any]:
        kept = {"pixels": self.pixels.detach(), "wanted": self.wanted, "target": self.target, "loss": self.loss}
        kept |= self.watch.state_dict()
        held = {} if self.held is None else {"held": self.held}
        return {"round": kept, "optimizer": self.optimizer.state_dict()} | held | super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.context.device
        self.pixels.copy_(state["round"]["pixels"])
        self.wanted = {tap: wanted.clone().to(device) for tap, wanted in state["round"]["wanted"].items()}
        self.target, self.loss = (state["round"][name].clone().to(device) for name in ("target", "loss"))
        self.watch.load_state_dict(state["round"], device)
        self.optimizer.load_state_dict(state["optimizer"])
        self.held = state["held"].clone().to(device) if "held" in state else None
        super().load_state_dict(state)

    def _matched(self, teacher: Tapped, classes: int) -> tuple[str, ...]:
        """The taps whose activations are matched."""
        known = self.statistics.taps
        taps = (penultimate(teacher),) if self.settings.match == "top_layer" else tuple(known)
        problems = []
        if self.statistics.classes != classes:
            problems.append(f"are of {self.statistics.classes} classes, but the teacher has {classes}")
        if taps[0] not in known:
            problems.append(
                f"do not hold {taps[0]!r}, the input of the teacher's classifier; they hold {', '.join(known)}"
            )
        for tap in known:
            shape = teacher.map.shape(tap)
            if shape is None:
                problems.append(f"hold {tap!r}, but the teacher has no such tap; {teacher.map.nearest(tap)}")
            elif torch.Size(shape).numel() != known[tap].mean.shape[1]:
                problems.append(
                    f"hold {known[tap].mean.shape[1]} numbers for {tap!r}, but the teacher's tap has "
                    f"{torch.Size(shape).numel()}"
                )
        if problems:
            raise SpecError([Problem("/source/statistics", words) for words in problems])
        return taps

    @torch.no_grad()
    def _begin(self) -> None:
        """Draw new noise and its target activations; all classes are equally frequent."""
        size = self.generator_batch
        chosen = self.settings
        device = self.context.device
        self.target = self.classes(self.random).to(device)
        z = torch.randn(size, self.statistics.rank, generator=self.random).to(device)
        self.wanted = {tap: self.statistics.taps[tap].sample(self.target, z) for tap in self.taps}
        noise = torch.randn(self.pixels.shape, generator=self.random)
        self.pixels.copy_(chosen.initial_mean + chosen.initial_std * noise)
        self.optimizer.state.clear()

    def _optimise(self) -> None:
        with torch.enable_grad():
            taps = self.teacher(self._normalised()).taps
            distances = []
            for tap, wanted in self.wanted.items():
                squared = (taps[tap].flatten(1).float() - wanted).square()
                if self.settings.dropout:
                    kept = torch.rand(squared.shape, generator=self.random) >= self.settings.dropout
                    squared = squared * kept.to(squared.device)
                distances.append(squared.mean(dim=1).sum())
            loss = torch.stack(distances).sum()
            (self.pixels.grad,) = torch.autograd.grad(loss, [self.pixels])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.detach() / self.generator_batch

    def _normalised(self) -> Tensor:
        return (self.pixels - self.mean) / self.std
