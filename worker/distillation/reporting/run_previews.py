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
from worker.distillation.reporting.previews import first_filters, means_by_class, write_filters, write_grid
from worker.distillation.source import Source

PREVIEW_SECONDS = 2.0
SYNTHETIC_SAMPLES = 1024
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
        self, *, student: nn.Module, teacher: nn.Module | None, source: Source, dataset: Images | None, step: int
    ) -> list[str]:
        """Write the source's previews, the mean image of each class, and both networks' first filters; return their names."""
        names = self._of_source(source, step)
        contract = self.job.contract
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
