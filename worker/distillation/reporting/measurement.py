"""Measurements of a student at the end of a run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.job import Job
from worker.distillation.reporting.class_results import MOST_CLASSES, class_results
from worker.distillation.source import Source, chosen_of
from worker.distillation.synthesis.collapse import LEAST_SPREAD, same_outputs, spread
from worker.distillation.synthesis.estimate import Estimator

SYNTHETIC_SAMPLES = 1024


@dataclass(frozen=True)
class Measurement:
    """Measures networks as a job's student. `evaluation` is images and the name of their split; `estimator` returns what
    estimates students of synthetic images, or None."""

    job: Job
    teacher: nn.Module | None
    evaluation: tuple[Images, str] | None
    source: Source
    estimator: Callable[[], Estimator | None]

    def measure(self, student: nn.Module) -> dict[str, Any]:
        """`evaluation` and `without_data`; each is None if it cannot be measured.

        Raises:
            Collapsed: the teacher gives the same prediction for all synthetic images.
        """
        return {"evaluation": self._on_evaluation(student), "without_data": self._without_data(student)}

    def metrics(self, network: nn.Module) -> Mapping[str, float] | None:
        """The task's metrics of a network on the evaluation images; None without evaluation images."""
        if self.evaluation is None:
            return None
        return self.job.task.evaluate(network.eval(), self.evaluation[0], self.job.training.batch_size)

    def _on_evaluation(self, student: nn.Module) -> dict[str, Any] | None:
        """Metrics of student and teacher, and the name of the task's main metric (`main_metric`)."""
        if self.evaluation is None:
            return None
        images, split = self.evaluation
        task = self.job.task
        batch_size = self.job.training.batch_size
        teacher = self.teacher if self._teacher_is_comparable(images) else None
        return {
            "split": split,
            "images": len(images),
            "main_metric": task.main_metric,
            "student": task.evaluate(student, images, batch_size, teacher),
            "teacher": task.evaluate(teacher, images.for_teacher, batch_size) if teacher else None,
            "by_class": self._by_class(student, teacher, images),
        }

    def _by_class(self, student: nn.Module, teacher: nn.Module | None, images: Images) -> dict[str, Any] | None:
        """The results class by class; None for tasks without classes, and for very many classes."""
        task, batch_size = self.job.task, self.job.training.batch_size
        if self.job.classes > MOST_CLASSES:
            return None
        if found := task.by_class(student, images, batch_size):
            counts = found.pop("images")
            theirs = task.by_class(teacher, images.for_teacher, batch_size) if teacher else None
            return {"images": counts, "student": found, "teacher": theirs}
        if task.name != "classification":
            return None
        return class_results(student, teacher, images, self.job.training.batch_size)

    def _teacher_is_comparable(self, images: Images) -> bool:
        """Whether the teacher has the student's classes, and the images contain what it reads."""
        if self.job.teacher is None:
            return True  # a teacher that the job trained was trained on the student's labels
        if self.job.transfers(images.class_names):
            return False
        return self.job.teacher_reads == "image" or images.privileged is not None

    def _without_data(self, student: nn.Module) -> dict[str, Any] | None:
        """The share of new synthetic images on which student and teacher predict the same class."""
        samples = self.source.samples(SYNTHETIC_SAMPLES) if self.teacher is not None else None
        if samples is None or self.teacher is None:
            return None
        with torch.no_grad():
            parts = samples.split(self.job.training.batch_size)
            student_logits = torch.cat([student(part) for part in parts])
            teacher_logits = torch.cat([self.teacher(part) for part in parts])
        if len(samples) > 1 and spread(teacher_logits) < LEAST_SPREAD:
            raise same_outputs(
                f"the teacher gives the same prediction for {len(samples)} synthetic images, although the images differ"
            )
        task = self.job.task.name
        agreement = float((chosen_of(student_logits, task) == chosen_of(teacher_logits, task)).float().mean())
        return {
            "samples": len(samples),
            "agreement_with_teacher": agreement,
            "estimate": self._estimate(student),
        }

    def _estimate(self, student: nn.Module) -> dict[str, Any] | None:
        """The estimated agreement on real images; None where it cannot be made."""
        estimator = self.estimator()
        found = estimator.estimate(student) if estimator else None
        return asdict(found) if found else None
