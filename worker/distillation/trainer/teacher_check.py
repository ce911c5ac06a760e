"""The teacher check: the accuracy of a teacher on some training images before any training."""

from collections.abc import Callable

import torch
from torch import nn

from worker.distillation.data.images import Images
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job
from worker.distillation.trainer.inputs import reads_labels

LEAST_IMAGES = 50
"""With fewer images the check is skipped."""
MOST_IMAGES = 2048


def check_teacher(job: Job, teacher: nn.Module | None, dataset: Images | None, log: Callable[[str], None]) -> None:
    """Log the teacher's metrics on training images; skipped if their labels are not the teacher's targets.

    Raises:
        SpecError: the teacher is at chance level, so its input contract is probably wrong.
    """
    if teacher is None or dataset is None or not _predicts_labels(job, dataset):
        return
    places = torch.linspace(0, len(dataset) - 1, min(MOST_IMAGES, len(dataset))).long()
    sample = dataset.at(places.to(dataset.image.device))
    if len(sample) < LEAST_IMAGES:
        return
    assessment = job.task.assess_teacher(teacher, sample.for_teacher, job.training.batch_size)
    log(f"the teacher on training images: {assessment.words}")
    if assessment.chance:
        raise SpecError(
            [Problem("/dataset", f"the teacher is at chance level on these images ({assessment.words})")],
            "Check the teacher's mean, std and channels, and that the dataset's labels are in the teacher's class order.",
        )


def _predicts_labels(job: Job, dataset: Images) -> bool:
    """Whether the dataset's labels are what the teacher should predict."""
    return reads_labels(job) and job.task.comparable(job.classes, dataset) and not job.transfers(dataset.class_names)
