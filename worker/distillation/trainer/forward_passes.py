"""Forward passes of a step: students and teacher on images, mirrored images and second views."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.distributed.division import Division
from worker.distillation.introspection.taps import Tapped
from worker.distillation.precision import fp32
from worker.distillation.step import Batch, Outputs
from worker.distillation.task import Task
from worker.distillation.teaching.cached_answers import CachedAnswers
from worker.distillation.teaching.quick_teacher import QuickTeacher
from worker.distillation.trainer.member_run import MemberRun
from worker.distillation.training import Training


@dataclass(frozen=True)
class StudentOutputs:
    """A student's outputs for a batch, and for mirrored images and second views if its objectives need them."""

    plain: Outputs
    mirrored: Outputs | None = None
    second: Outputs | None = None


@dataclass(frozen=True)
class ForwardPasses:
    """Runs networks as their `task` reads them, at the training's precision, or in float32 if an objective needs gradients to the
    image."""

    task: Task
    training: Training
    teacher: Tapped | None
    input_gradient: bool
    quick: QuickTeacher | None = None
    """Gives the teacher's logits instead, if nothing else of it is read."""
    answers: CachedAnswers | None = None
    """The teacher's logits for all views of the source, if they are cached."""

    def student(self, member: MemberRun, batch: Batch) -> StudentOutputs:
        """All outputs of a member, from one forward pass, so that BatchNorm sees all images as one batch."""
        mirrored = any(needs.mirrored for needs in member.composition.needs())
        second = "second_view" in member.composition.fields
        images = [batch.image]
        images += [batch.image.flip(3)] if mirrored else []
        images += [batch.fields["second_view"]] if second else []
        if len(images) == 1:
            return StudentOutputs(self.run(member.tapped, batch.image, batch.division, batch.fields))
        plain, *others = self.run(member.tapped, torch.cat(images), batch.division).chunks(len(images))
        return StudentOutputs(plain, others[0] if mirrored else None, others[-1] if second else None)

    def teach(self, batch: Batch, shared: Outputs | None = None) -> Outputs | None:
        """The teacher's outputs; taken from the batch if the source has already computed them. `shared` are the student's
        outputs, if the task's student goes first."""
        if self.teacher is None or batch.teacher is not None:
            return batch.teacher
        if self.answers is not None and batch.view is not None:
            return self.answers.of(batch.view)
        return self._live(
            batch.read(self.teacher.reads), batch.division, batch.fields, shared, gradient=self.input_gradient
        )

    def logits(self, batch: Batch) -> Tensor:
        """The teacher's logits (B, K), computed anew."""
        assert self.teacher is not None
        return self._live(batch.read(self.teacher.reads), batch.division).logits

    def teach_second(self, batch: Batch) -> Outputs | None:
        """The teacher's outputs for the second views; None if the teacher reads other images than the student."""
        if self.teacher is None or self.teacher.reads != "image" or "second_view" not in batch.fields:
            return None
        return self._live(batch.fields["second_view"], batch.division)

    def _live(
        self,
        image: Tensor,
        division: Division,
        fields: Mapping[str, Tensor] | None = None,
        shared: Outputs | None = None,
        gradient: bool = False,
    ) -> Outputs:
        assert self.teacher is not None
        if self.quick is not None:
            return Outputs(self.quick(image))
        with torch.set_grad_enabled(gradient):
            return self.run(self.teacher, image, division, fields, shared)

    def run(
        self,
        network: Tapped,
        image: Tensor,
        division: Division,
        fields: Mapping[str, Tensor] | None = None,
        shared: Outputs | None = None,
    ) -> Outputs:
        """One forward pass on this rank's part of a batch."""
        precision = fp32 if self.input_gradient else self.training.autocast
        with precision(image.device), division.statistics():
            return self.task.read(network, image, fields or {}, shared)
