"""The check of a teacher on the job's own images, before any training."""

from collections.abc import Callable

import torch
from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job
from worker.distillation.trainer.inputs import reads_labels

LEAST_IMAGES = 50
"""A teacher is not checked on fewer images."""
MOST_IMAGES = 2048


def check_teacher(job: Job, teacher: nn.Module | None, dataset: Images | None, log: Callable[[str], None]) -> None:
    """Log how well the teacher does on training images; nothing where their labels do not say.

    Raises:
        SpecError: it is at chance level, so that its input contract is probably wrong.
    """
    if teacher is None or dataset is None or not _answers_labels(job, dataset):
        return
    places = torch.linspace(0, len(dataset) - 1, min(MOST_IMAGES, len(dataset))).long()
    sample = dataset.at(places.to(dataset.image.device))
    if len(sample) < LEAST_IMAGES:
        return
    assessment = job.task.assess_teacher(teacher, sample.for_teacher, job.training.batch_size)
    log(f"the teacher on training images: {assessment.words}")
    if assessment.chance:
        raise SpecError(
            [Problem("/dataset", f"the teacher is at chance level on it ({assessment.words})")],
            "Check the teacher's mean, std and channels, and that the dataset's labels have the teacher's order.",
        )


def _answers_labels(job: Job, dataset: Images) -> bool:
    """Whether the dataset's labels say what the teacher ought to answer."""
    return reads_labels(job) and job.task.comparable(job.classes, dataset) and not job.transfers(dataset.class_names)
