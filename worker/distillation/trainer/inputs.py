"""The images of a job: training images, held-out validation images, and evaluation images."""

from dataclasses import dataclass

import torch

from worker.distillation import registry
from worker.distillation.data.images import Images
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job


@dataclass(frozen=True)
class Inputs:
    """`dataset` excludes the held-out images in `validation`; `evaluation` is images and the name of their split."""

    dataset: Images | None
    validation: Images | None
    evaluation: tuple[Images, str] | None


def load_inputs(job: Job, device: torch.device, evaluates: bool) -> Inputs:
    """Load a job's images onto `device`; evaluation images only if this process `evaluates`.

    Raises:
        SpecError: the images do not fit the job.
    """
    whole = job.load_dataset(device)
    evaluation = job.load_evaluation(device, whole) if evaluates else None
    dataset, validation = _split(job, whole)
    if evaluation is not None:
        job.task.check_labels(evaluation[0], job.classes, "/evaluation/dataset")
    return Inputs(dataset, validation, evaluation)


def _split(job: Job, dataset: Images | None) -> tuple[Images | None, Images | None]:
    """The training images and the held-out images."""
    training = job.training
    if dataset is not None and not {"label", "target", job.task.field} & dataset.fields.keys() and reads_labels(job):
        words = f"has no labels, and the source `{job.spec['source']['name']}` reads them"
        raise SpecError([Problem("/dataset", words)], "Name a dataset with labels, or choose the source `substitute`.")
    if training.validation_fraction and not reads_labels(job):
        message = "needs a dataset with labels, and the source does not read labels of real images"
        raise SpecError([Problem("/training/validation_fraction", message)])
    if dataset is None or not training.validation_fraction:
        return dataset, None
    dataset, validation = dataset.split(training.validation_fraction, training.seed)
    job.task.check_labels(dataset, job.classes, "/dataset")
    return dataset, validation


def reads_labels(job: Job) -> bool:
    """Whether the job's source reads the labels of its dataset."""
    source = registry.find("sources", job.spec["source"]["name"], "/source")
    return not (source.ignores_labels or source.synthesises)
