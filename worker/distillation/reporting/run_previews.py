"""The previews of a run: images of its batches during training, and class means and filters at its end."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.distillation.data.images import Images
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.reporting.previews import (
    first_filters,
    means_by_class,
    write_filters,
    write_grid,
    write_pictures,
)
from worker.distillation.source import Source
from worker.distillation.step import Outputs
from worker.distillation.tasks.pictures import rgb

PREVIEW_SECONDS = 2.0
SYNTHETIC_SAMPLES = 1024
SHOWN, JUDGED = 8, 64
"""Images in a picture of examples, and images among which the worst are looked for."""
LEAST_SAMPLES, MOST_NUMBERS = 256, 2**25
"""Bounds on the images of which class means are taken: their number, and the numbers of all together."""


class RunPreviews:
    """Writes PNG files to `previews/` of the job's folder, and sends an event `preview` for each."""

    def __init__(self, job: Job, channel: Channel):
        self.job = job
        self.channel = channel
        self._last_written = -PREVIEW_SECONDS
        self._step = -1
        self._names: list[str] = []

    def after_epoch(self, source: Source, step: int) -> None:
        """Write the source's previews, if the last ones are at least `PREVIEW_SECONDS` old."""
        if time.monotonic() - self._last_written >= PREVIEW_SECONDS and self._of_source(source, step):
            self._last_written = time.monotonic()

    def at_end(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module | None,
        source: Source,
        dataset: Images | None,
        images: Images | None,
        step: int,
    ) -> list[str]:
        """Write the source's previews, pictures of the outputs for some of `images`, the mean image of each class, and both networks'
        first filters; return their names."""
        names = self._of_source(source, step)
        contract = self.job.contract
        for name, rows in pictures(self.job, student, teacher, images).items():
            names.append(self._write(name, step, partial(write_pictures, rows)))
        means = class_means(self.job, teacher, source, dataset)
        if means is not None:
            names.append(self._write("class-means", step, partial(write_grid, means, contract, columns=10)))
        left = first_filters(teacher, contract) if teacher is not None else None
        right = first_filters(student, contract)
        if left is not None and right is not None:
            names.append(self._write("first-filters", step, partial(write_filters, left, right)))
        return names

    def _of_source(self, source: Source, step: int) -> list[str]:
        """Write the source's previews, at most once per step; return their file names."""
        if self._step != step:
            self._names = [
                self._write(name, step, partial(write_grid, images, self.job.contract))
                for name, images in source.previews().items()
            ]
            self._step = step
        return list(self._names)

    def _write(self, name: str, step: int, write: Callable[[Path], None]) -> str:
        """Write a preview, send its event, and return its file name."""
        path = self.job.folder / "previews" / f"{name}-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        write(path)
        place = str(path.relative_to(self.job.folder))
        self.channel.say("preview", name=path.name, path=place, content_type="image/png", step=step)
        return path.name


@torch.no_grad()
def pictures(
    job: Job, student: nn.Module, teacher: nn.Module | None, images: Images | None
) -> dict[str, list[list[Tensor]]]:
    """Rows of an image, its truth, the student's and the teacher's answer: `examples` at even distances, and `worst`, on which the
    student has the lowest main metric among at most 64. Empty for tasks whose answers have no place in the image."""
    if images is None or not job.task.dense or job.task.field not in images.fields:
        return {}
    places = torch.linspace(0, len(images) - 1, min(len(images), JUDGED)).round().long()
    worst: list[tuple[float, int]] = []
    for place in places.tolist():
        one = images.at(torch.tensor([place], device=images.device))
        value = job.task.evaluate(student, one, 1).get(job.task.main_metric, float("nan"))
        if value == value:
            worst.append((value if job.task.higher_is_better else -value, place))
    chosen = {
        "examples": places[torch.linspace(0, len(places) - 1, min(len(places), SHOWN)).round().long()].tolist(),
        "worst": [place for _, place in sorted(worst)[:SHOWN]],
    }
    return {
        name: [_row(job, student, teacher, images, place) for place in listed]
        for name, listed in chosen.items()
        if listed
    }


def _row(job: Job, student: nn.Module, teacher: nn.Module | None, images: Images, place: int) -> list[Tensor]:
    task, image = job.task, images.pixels(slice(place, place + 1))[0]
    truth = {name: value[place] for name, value in images.fields.items()}
    row = [rgb(image)]
    outputs: list[Outputs | None] = [None, _answer(student, images, place)]
    if teacher is not None and job.teacher_reads == "image":
        outputs.append(_answer(teacher, images, place))
    return row + [found for output in outputs if (found := task.picture(image, output, truth)) is not None]


def _answer(network: nn.Module, images: Images, place: int) -> Outputs:
    given = network(images.normalise(images.pixels(slice(place, place + 1))))
    return given if isinstance(given, Outputs) else Outputs(given)


@torch.no_grad()
def class_means(job: Job, teacher: nn.Module | None, source: Source, dataset: Images | None) -> Tensor | None:
    """The mean image of every class (K, C, H, W). Classes are the teacher's predictions if images are synthesised or labels
    are not read, otherwise the dataset's labels. None if an image does not have exactly one class."""
    if job.task.field != "label":
        return None
    images = source.samples(SYNTHETIC_SAMPLES)
    label = None
    if images is None:
        if dataset is None:
            return None
        most = max(LEAST_SAMPLES, min(4 * SYNTHETIC_SAMPLES, MOST_NUMBERS // dataset.pixels(slice(1)).numel()))
        places = torch.linspace(0, len(dataset) - 1, min(len(dataset), most)).long()
        part = dataset.at(places.to(dataset.device))
        images = dataset.normalise(part.pixels(slice(None)))
        label = part.fields.get("label")
    if label is None or source.ignores_labels or (dataset is not None and dataset.classes != job.classes):
        if teacher is None or job.teacher_reads != "image":
            return None
        label = torch.cat([teacher(each).argmax(1) for each in images.split(job.training.batch_size)])
    known = label.ndim == 1 and int(label.max()) < job.classes
    return means_by_class(images, label, job.classes) if known else None
