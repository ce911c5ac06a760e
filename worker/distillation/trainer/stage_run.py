"""The training loop: a stage is built from plain data, stepped, saved and restored."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.member_transforms import TransformContext
from worker.distillation.errors import Diverged, Problem, SpecError
from worker.distillation.introspection.modes import statistics_kept
from worker.distillation.introspection.taps import Tapped
from worker.distillation.procedure import Stage
from worker.distillation.process.heartbeat import pulse
from worker.distillation.randomness import seed_all, seed_for
from worker.distillation.source import Position
from worker.distillation.step import Batch, Outputs, Step
from worker.distillation.teaching.cached_answers import FrozenParts, kept_answers
from worker.distillation.teaching.quick_teacher import quick_teacher
from worker.distillation.trainer.forward_passes import ForwardPasses
from worker.distillation.trainer.member_run import MemberRun, peers_of
from worker.distillation.trainer.metric_means import MetricMeans
from worker.distillation.trainer.stage_context import StageContext
from worker.distillation.trainer.stage_source import build_source, calibration_images, plain_batches
from worker.distillation.transform import Recipe
from worker.distillation.transformed_network import Entry

KINDS = ("network", "objectives", "optimizers", "transforms")
"""The parts of a checkpoint that hold the members."""


class StageRun:
    """One running stage. `number` is the next step, of `total`; the source's first generator steps come before step 0."""

    def __init__(
        self,
        stage: Stage,
        *,
        networks: Mapping[str, nn.Module],
        teacher: Tapped | None,
        context: StageContext,
        entries: Mapping[str, Sequence[Entry]] | None = None,
        recipes: Mapping[str, Sequence[Recipe]] | None = None,
    ):
        """`networks` are the members' networks, which already have their initial weights; `entries` the transforms that were carried
        out on them before; `recipes` those of the members' own transforms, from a checkpoint."""
        self.stage = stage
        self.teacher = teacher
        self.context = context
        self.training = context.training
        self.ranks = context.ranks
        self.members = {
            name: MemberRun(
                member,
                networks[name],
                teacher=teacher,
                training=self.training,
                context=context.connecting(peers=len(stage.members) - 1),
                transforming=self._transform_context(
                    name, (entries or {}).get(name, ()), None if recipes is None else recipes[name]
                ),
            )
            for name, member in stage.members.items()
        }
        self.input_gradient = self._any_need("input_gradient")
        compositions = [each.composition for each in self.members.values()]
        self.logits_alone = teacher is not None and all(each.reads_logits_alone for each in compositions)
        quick = quick_teacher(teacher, self.training, context.graphs) if self.logits_alone else None
        self.passes = ForwardPasses(context.task, self.training, teacher, self.input_gradient, quick)
        self.source = build_source(stage, compositions, teacher, context)
        self.steps_per_epoch = self.source.steps_per_epoch()
        self.total = stage.steps or (stage.epochs or 1) * self.steps_per_epoch
        self.generator_steps_first = self.source.generator_steps(0)
        self.generator_steps_total = self.source.generator_steps(self.total - 1)
        self.number = 0
        self.generator_steps_done = 0
        self.means = MetricMeans()
        self.last: dict[str, float] = {}
        """The newest value of every metric."""
        # ranks must draw different random numbers for their samples, such as dropout masks
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
        """Progress of the stage, from 0 to 1."""
        whole = self.total + self.generator_steps_total
        return (self.number + self.generator_steps_done) / whole if whole else 1.0

    def prepare(self) -> None:
        """The pre-pass over the training set, for objectives that need it; do not call it after a resume."""
        if not self._any_need("prepass"):
            return
        for batch in plain_batches(self.context, self.source):
            pulse()
            with torch.no_grad():
                teacher = self.passes.teach(batch)
                step = Step(batch=batch, student=Outputs(batch.image.new_empty(0)), teacher=teacher)
                for member in self.members.values():
                    member.composition.observe(step)

    def cache_answers(self, parts: FrozenParts) -> None:
        """Compute the teacher's logits for all views, or read them from a checkpoint, if the job asks for it and nothing else of
        the teacher is read; call it before the first step, and after a resume.

        Raises:
            SpecError: the source shows new images all the time, or too many.
        """
        if self.training.teacher_answers == "cached" and self.logits_alone:
            answers = kept_answers(parts, self.stage.name, self.source, self.passes.logits, self.context.classes)
            self.passes = replace(self.passes, answers=answers)

    def advance(self) -> None:
        """Take one step: a generator step of the source, or a step of all members."""
        if self.generator_steps_done < self.source.generator_steps(self.number):
            self.source.generator_step(self.generator_steps_done, self.students)
            self.generator_steps_done += 1
            return
        position = self._position()
        batch = self.source.batch(position, self.students).channels_last()
        if self.context.task.student_first:
            batch = batch.seeded(seed_for(self.training.seed, self.stage.seeded_by, "draws", position.number))
        for member in self.members.values():
            member.train_mode()
        if self.input_gradient:
            batch = replace(batch, image=batch.image.detach().clone().requires_grad_(True), teacher=None)
        try:
            self._update(batch, position)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            message = "a batch of one image is too small for the student's BatchNorm"
            hint = "Raise the batch size, or let the source drop the last batch."
            raise SpecError([Problem("/training/batch_size", message)], hint) from error
        self.number += 1

    def _update(self, batch: Batch, position: Position) -> None:
        """One step of every member, on the same batch."""
        first = self.context.task.student_first
        teacher = None if first else self.passes.teach(batch)
        second_teacher = self.passes.teach_second(batch)
        students = {name: self.passes.student(member, batch) for name, member in self.members.items()}
        if first:
            teacher = self.passes.teach(batch, next(iter(students.values())).plain)
        outputs = {name: student.plain for name, student in students.items()}
        for name, member in self.members.items():
            step = Step(
                batch=batch,
                student=students[name].plain,
                teacher=teacher,
                peers=peers_of(name, outputs),
                progress=position.progress,
                number=position.number,
                mirrored=students[name].mirrored,
                second=students[name].second,
                second_teacher=second_teacher,
            )
            loss, terms = member.update(step, self.total)
            prefix = "" if len(self.members) == 1 else f"{name}/"
            self.means.add({f"{prefix}loss": loss} | {f"{prefix}{term}": value for term, value in terms.items()})
            if self.stage.update == "sequential":
                with torch.no_grad(), statistics_kept(member.network):
                    outputs[name] = self.passes.run(member.tapped, batch.image, batch.division, batch.fields)

    def metrics(self) -> dict[str, float]:
        """Means since the last call, including the source's metrics, and the learning rate.

        Raises:
            Diverged: a loss is infinite or NaN.
        """
        self.means.add({name: value / self.ranks.size for name, value in self.source.metrics().items()})
        values = self.means.read(self.ranks)
        for name, value in values.items():
            if name.split("/")[-1] == "loss" and not abs(value) < float("inf"):
                raise Diverged(
                    f"the training diverged: {name} became {value} before step {self.number} of stage {self.stage.name!r}",
                    "Lower training/learning_rate, add training/warm_up_steps, or lower the weights of the objectives.",
                )
        if self.number:
            values["learning_rate"] = self.training.learning_rate_at(self.number - 1, self.total)
        self.last |= values
        return values

    def finish(self) -> None:
        for member in self.members.values():
            member.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Parts of a checkpoint by name; all ranks must call it together."""
        self.means.combine(self.ranks)
        members = {name: member.state_dict() for name, member in self.members.items()}
        parts = {kind: {name: state[kind] for name, state in members.items()} for kind in KINDS}
        parts |= {f"source/{key}": state for key, state in self.source.state_dict().items()}
        parts["stage"] = {
            "name": self.stage.name,
            "number": self.number,
            "generator_steps_done": self.generator_steps_done,
            "means": self.means.state_dict(),
            "last": self.last,
        }
        return parts

    def load_state_dict(self, parts: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the global random generators are restored afterwards."""
        for name, member in self.members.items():
            member.load_state_dict({kind: parts[kind][name] for kind in KINDS})
        prefix = "source/"
        self.source.load_state_dict(
            {key.removeprefix(prefix): state for key, state in parts.items() if key.startswith(prefix)}
        )
        stage = parts["stage"]
        self.number = stage["number"]
        self.generator_steps_done = stage["generator_steps_done"]
        self.last = stage["last"]
        self.means.load_state_dict(stage["means"], device=self.context.device, leads=self.ranks.leads)

    def _position(self) -> Position:
        epoch, step = divmod(self.number, self.steps_per_epoch)
        return Position(epoch=epoch, step=step, number=self.number, progress=self.number / self.total)

    def _any_need(self, name: str) -> bool:
        return any(getattr(needs, name) for member in self.members.values() for needs in member.composition.needs())

    def _transform_context(
        self, name: str, entries: Sequence[Entry], recipes: Sequence[Recipe] | None
    ) -> TransformContext:
        """What a member's transforms need."""
        held = weakref.ref(self)  # a stage that has ended is freed at once

        def images(count: int) -> Tensor:
            run = held()
            assert run is not None
            return calibration_images(run.context, run.source, count)

        return TransformContext(
            example=self.context.example(),
            contract=self.context.contract,
            classes=self.context.classes,
            seed=seed_for(self.training.seed, self.stage.seeded_by, name, "transforms"),
            images=images,
            ranks=self.ranks,
            entries=entries,
            recipes=recipes,
        )
