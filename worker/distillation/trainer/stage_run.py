"""The one training loop: a stage, built from plain data, stepped, saved and restored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation import registry
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.distributed.division import Division
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.errors import Diverged, Problem, SpecError
from worker.distillation.introspection.gradients import require_gradient
from worker.distillation.introspection.modes import statistics_kept
from worker.distillation.introspection.taps import Tapped
from worker.distillation.precision import fp32
from worker.distillation.procedure import Stage
from worker.distillation.process.heartbeat import pulse
from worker.distillation.randomness import seed_all, seed_for
from worker.distillation.source import Position, Source, SourceContext, check_fields, taught
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.task import Task
from worker.distillation.trainer.member_run import MemberRun, peers_of
from worker.distillation.trainer.metric_means import Averages
from worker.distillation.trainer.objective_sum import check_division, check_task
from worker.distillation.training import Training


@dataclass
class Surroundings:
    """What a stage is run in: the job's task, data, contract, classes and device."""

    task: Task
    contract: InputContract
    classes: int
    dataset: Images | None
    source: Mapping[str, Any]
    training: Training
    device: torch.device
    ranks: Ranks = ALONE
    files: Mapping[str, Path] = field(default_factory=dict)
    restarts: int = 0

    def with_training(self, overrides: Mapping[str, Any]) -> "Surroundings":
        """The same, with some keys of the training replaced by a stage's own."""
        return replace(self, training=Training.from_spec(asdict(self.training) | dict(overrides)))

    def example(self) -> Tensor:
        """Two blank images, to find shapes with."""
        return self.contract.blank(self.device)


class StageRun:
    """One stage, alive. `number` is the next step to take, of `total`; the source's first generator steps come before it."""

    def __init__(
        self,
        stage: Stage,
        networks: Mapping[str, nn.Module],
        teacher: Tapped | None,
        surroundings: Surroundings,
    ):
        self.stage, self.teacher, self.surroundings = stage, teacher, surroundings
        self.training = surroundings.training
        dataset = surroundings.dataset
        self.members = {
            name: MemberRun(
                member,
                networks[name],
                teacher,
                self.training,
                surroundings.example(),
                surroundings.classes,
                dataset.examples if dataset is not None else None,
                task=surroundings.task.name,
                peers=len(stage.members) - 1,
            )
            for name, member in stage.members.items()
        }
        self.ranks = surroundings.ranks
        self.input_gradient = self._any_need("input_gradient")
        self.source = self._build_source()
        self.steps_per_epoch = self.source.steps_per_epoch()
        self.total = stage.steps or (stage.epochs or 1) * self.steps_per_epoch
        self.generator_steps_first = self.source.generator_steps(0)
        self.generator_steps_in_all = self.source.generator_steps(self.total - 1)
        self.number = self.generator_steps_done = 0
        self.averages = Averages()
        self.last: dict[str, float] = {}
        # what a rank draws for its own samples, such as a dropout's mask, must not be what the others draw for theirs
        stream = ("training",) if self.ranks.leads else ("training", self.ranks.rank)
        seed_all(seed_for(self.training.seed, stage.seeded_by, *stream))

    @property
    def students(self) -> dict[str, nn.Module]:
        return {name: member.tapped for name, member in self.members.items()}

    @property
    def finished(self) -> bool:
        return self.number >= self.total

    @property
    def epoch(self) -> int:
        return self.number // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """How much of the stage is done, from 0 to 1."""
        whole = self.total + self.generator_steps_in_all
        return (self.number + self.generator_steps_done) / whole if whole else 1.0

    def prepare(self) -> None:
        """The pre-pass over the training set, for objectives that want it; not to be repeated after a resume."""
        if not self._any_need("prepass"):
            return
        for batch in self._plain_batches():
            pulse()
            with torch.no_grad():
                teacher = self.teacher(batch.read(self.teacher.reads)) if self.teacher else None
                step = Step(batch, Outputs(batch.image.new_empty(0)), teacher)
                for member in self.members.values():
                    member.composition.observe(step)

    def advance(self) -> None:
        """Take one step: a generator step of the source, or one of all members."""
        if self.generator_steps_done < self.source.generator_steps(self.number):
            self.source.generator_step(self.generator_steps_done, self.students)
            self.generator_steps_done += 1
            return
        position = self._position()
        batch = self.source.batch(position, self.students)
        for member in self.members.values():
            member.train_mode()
        if self.input_gradient:
            batch = replace(batch, image=batch.image.detach().clone().requires_grad_(True), teacher=None)
        try:
            self._update(batch, position)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            words = "a batch of one image is too small for the student's BatchNorm"
            hint = "Raise it, or let the source drop the last batch."
            raise SpecError([Problem("/training/batch_size", words)], hint) from error
        self.number += 1

    def _update(self, batch: Batch, position: Position) -> None:
        teacher, second_teacher = self._teach(batch), self._teach_second(batch)
        views = {name: self._views(member, batch) for name, member in self.members.items()}
        outputs = {name: plain for name, (plain, _, _) in views.items()}
        sequential = self.stage.update == "sequential"
        for name, member in self.members.items():
            peers, (plain, mirrored, second) = peers_of(name, outputs), views[name]
            at = position.progress, position.number
            step = Step(batch, plain, teacher, peers, *at, mirrored, second, second_teacher)
            loss, terms = member.update(step, position.number, self.total)
            prefix = "" if len(self.members) == 1 else f"{name}/"
            self.averages.add({f"{prefix}loss": loss} | {f"{prefix}{term}": value for term, value in terms.items()})
            if sequential:
                with torch.no_grad(), statistics_kept(member.network):
                    outputs[name] = self._forward(member.tapped, batch.image, batch.division)

    def metrics(self) -> dict[str, float]:
        """Means since the last call, the source's figures and the learning rate.

        Raises:
            Diverged: a loss is infinite or not a number.
        """
        self.averages.add({name: value / self.ranks.size for name, value in self.source.metrics().items()})
        values = self.averages.read(self.ranks)
        for name, value in values.items():
            if name.split("/")[-1] == "loss" and not abs(value) < float("inf"):
                raise Diverged(
                    f"the training diverged: {name} became {value} before step {self.number} of stage {self.stage.name!r}",
                    "lower training/learning_rate, add training/warm_up_steps, or lower the weights of the objectives",
                )
        if self.number:
            values["learning_rate"] = self.training.learning_rate_at(self.number - 1, self.total)
        self.last |= values
        return values

    def finish(self) -> None:
        for member in self.members.values():
            member.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Parts of a checkpoint by name; all ranks ask at once."""
        self.averages.combine(self.ranks)
        members = {name: member.state_dict() for name, member in self.members.items()}
        parts = {
            kind: {name: state[kind] for name, state in members.items()}
            for kind in ("network", "objectives", "optimizers", "transforms")
        }
        parts |= {f"source/{key}": state for key, state in self.source.state_dict().items()}
        averages = {"sums": self.averages.sums, "counts": self.averages.counts}
        parts["stage"] = {
            "name": self.stage.name,
            "number": self.number,
            "generator_steps_done": self.generator_steps_done,
            "averages": averages,
            "last": self.last,
        }
        return parts

    def load_state_dict(self, parts: Mapping[str, Any]) -> None:
        """Undo `state_dict`; the global random generators are restored by the run, afterwards."""
        for name, member in self.members.items():
            kinds = ("network", "objectives", "optimizers", "transforms")
            member.load_state_dict({kind: parts[kind][name] for kind in kinds})
        prefix = "source/"
        self.source.load_state_dict(
            {key[len(prefix) :]: state for key, state in parts.items() if key.startswith(prefix)}
        )
        stage = parts["stage"]
        self.number, self.generator_steps_done, self.last = (
            stage["number"],
            stage["generator_steps_done"],
            stage["last"],
        )
        sums = {name: value.to(self.surroundings.device) for name, value in stage["averages"]["sums"].items()}
        if not self.ranks.leads:
            sums = {name: torch.zeros_like(value) for name, value in sums.items()}
        self.averages = Averages(sums, stage["averages"]["counts"])

    def _position(self) -> Position:
        epoch, step = divmod(self.number, self.steps_per_epoch)
        return Position(epoch, step, self.number, self.number / self.total)

    def _views(self, member: MemberRun, batch: Batch) -> tuple[Outputs, Outputs | None, Outputs | None]:
        """A member's outputs, and those for mirrored images and for second views where an objective needs them.

        BatchNorm sees all of them as one batch.
        """
        mirrored = any(needs.mirrored for needs in member.composition.needs())
        second = "second_view" in member.composition.fields
        images = [batch.image]
        images += [batch.image.flip(3)] if mirrored else []
        images += [batch.fields["second_view"]] if second else []
        if len(images) == 1:
            return self._forward(member.tapped, batch.image, batch.division), None, None
        plain, *others = self._forward(member.tapped, torch.cat(images), batch.division).parts(len(images))
        return plain, others[0] if mirrored else None, others[-1] if second else None

    def _forward(self, network: Callable[[Tensor], Outputs], image: Tensor, division: Division) -> Outputs:
        precision = fp32 if self.input_gradient else self.training.autocast
        with precision(image.device), division.statistics():
            return network(image)

    def _teach(self, batch: Batch) -> Outputs | None:
        if self.teacher is None or batch.teacher is not None:
            return batch.teacher
        with torch.set_grad_enabled(self.input_gradient):
            return self._forward(self.teacher, batch.read(self.teacher.reads), batch.division)

    def _teach_second(self, batch: Batch) -> Outputs | None:
        """The teacher's outputs for the second views; there are none of the images of a teacher that reads others."""
        if self.teacher is None or self.teacher.reads != "image" or "second_view" not in batch.fields:
            return None
        with torch.no_grad():
            return self._forward(self.teacher, batch.fields["second_view"], batch.division)

    def _any_need(self, name: str) -> bool:
        return any(getattr(needs, name) for member in self.members.values() for needs in member.composition.needs())

    def _build_source(self) -> Source:
        around = self.surroundings
        source = registry.make("sources", around.source, "/source")
        compositions = [member.composition for member in self.members.values()]
        fields = tuple(sorted({name for c in compositions for name in c.fields}))
        check_fields(source, fields)
        for composition in compositions:
            check_division(composition, source, self.ranks.size)
            check_task(composition, source, around.task, around.classes)
        if around.task.field in fields and around.dataset is not None and not source.ignores_labels:
            around.task.check_labels(around.dataset, around.classes, "/dataset")
        if self.teacher is not None and source.needs.teacher_gradient:
            require_gradient(self.teacher.network, around.contract.blank(around.device))
        again = ("restart", around.restarts) if around.restarts else ()
        source.build(
            SourceContext(
                teacher=self.teacher,
                contract=around.contract,
                classes=around.classes,
                dataset=around.dataset,
                batch_size=self.training.batch_size,
                total_steps=self.stage.steps,
                sampler=next((c.sampler for c in compositions if c.sampler), None),
                fields=fields,
                seed=seed_for(self.training.seed, self.stage.seeded_by, "source", *again),
                device=around.device,
                teacher_taps=bool(self.teacher and self.teacher.requested),
                ranks=self.ranks,
                files=around.files,
                restarts=around.restarts,
                task=around.task.name,
            )
        )
        return source

    def _plain_batches(self) -> Iterator[Batch]:
        dataset = self.surroundings.dataset
        assert dataset is not None
        for start in range(0, len(dataset), self.training.batch_size):
            part = slice(start, start + self.training.batch_size)
            fields = dataset.batch_fields(part)
            if dataset.privileged is not None:
                fields["privileged"] = dataset.privileged.normalise(dataset.privileged.image[part])
            batch = Batch(dataset.normalise(dataset.image[part]), fields)
            yield taught(batch, self.source.context) if self.source.ignores_labels else batch
