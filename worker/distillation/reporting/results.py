"""What a run leaves: figures, pictures, exports and the report; and the times of its phases."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.data.images import Images
from worker.distillation.export import export
from worker.distillation.job import Job
from worker.distillation.networks.ensemble import Ensemble
from worker.distillation.procedure import GIVEN, Member, StageResult
from worker.distillation.process.event_pipe import Channel
from worker.distillation.reporting.previews import first_filters, means_by_class, write_filters, write_grid
from worker.distillation.reporting.report import begun_with, report
from worker.distillation.source import Source, chosen_of
from worker.distillation.synthesis.collapse import LEAST_SPREAD, answered_alike, spread
from worker.distillation.trainer.lineage import build_network
from worker.distillation.trainer.objective_sum import deploying

PREVIEW_SECONDS = 2.0
SCORED_SAMPLES = 1024
MOST_NAMES_BYTES = 200_000
"""An event is one line, which must not be too long; longer lists of class names are in the student's files alone."""


class Results:
    """Writes to `output/` and `previews/` of the job's folder, and says so on the channel."""

    def __init__(self, job: Job, channel: Channel, device: torch.device):
        self.job, self.channel, self.device = job, channel, device
        self.shipped: dict[str, Any] = {}
        """What shipped, by which it can be built; empty before it has."""
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._since = time.monotonic()
        self._last_preview = -PREVIEW_SECONDS
        self._previewed: tuple[int, list[str]] = (-1, [])

    def environment(self) -> dict[str, Any]:
        """What the run runs on."""
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else (platform.processor() or platform.machine())
        )
        return {
            "versions": versions,
            "device": str(self.device),
            "device_name": name,
            "threads": torch.get_num_threads(),
        }

    def enter(self, phase: str, stage: str | None = None) -> None:
        """Say that a phase begins, and account for the one before."""
        self.phases()
        self._phase, self._since = phase, time.monotonic()
        self.channel.say("phase", phase=phase, stage=stage)

    def phases(self) -> dict[str, float]:
        """Seconds by phase until now, earlier attempts up to their checkpoint included."""
        now = time.monotonic()
        if self._phase is not None:
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now - self._since
        self._since = now
        return dict(self._phases)

    def restore_phases(self, phases: Mapping[str, float]) -> None:
        self._phases = dict(phases)

    def previews(self, source: Source, step: int) -> None:
        """Write the source's pictures, if the last ones are a moment old."""
        if time.monotonic() - self._last_preview >= PREVIEW_SECONDS and self._previews(source, step):
            self._last_preview = time.monotonic()

    def portraits(
        self, student: nn.Module, teacher: nn.Module | None, source: Source, dataset: Images | None, step: int
    ) -> list[str]:
        """At the end, pictures of what was learnt and from what: the source's own, the mean image of each class, and both
        networks' first filters; gives their names."""
        names, contract = self._previews(source, step), self.job.contract
        means = class_means(self.job, teacher, source, dataset)
        if means is not None:
            names.append(self._show("class-means", step, partial(write_grid, means, contract, columns=10)))
        left = first_filters(teacher, contract) if teacher is not None else None
        right = first_filters(student, contract)
        if left is not None and right is not None:
            names.append(self._show("first-filters", step, partial(write_filters, left, right)))
        return names

    def _previews(self, source: Source, step: int) -> list[str]:
        """Write the source's pictures, once for each step; gives their files' names."""
        if self._previewed[0] != step:
            contract = self.job.contract
            names = [
                self._show(name, step, partial(write_grid, images, contract))
                for name, images in source.previews().items()
            ]
            self._previewed = step, names
        return list(self._previewed[1])

    def _show(self, name: str, step: int, write: Callable[[Path], None]) -> str:
        """Write a picture and say that it is there; gives its file's name."""
        path = self.job.folder / "previews" / f"{name}-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        write(path)
        place = str(path.relative_to(self.job.folder))
        self.channel.say("preview", name=path.name, path=place, content_type="image/png", step=step)
        return path.name

    def figures(
        self, student: nn.Module, teacher: nn.Module | None, evaluation: tuple[Images, str] | None, source: Source
    ) -> dict[str, Any]:
        """What was measured of student and teacher; each part is None where it could not be measured."""
        batch_size = self.job.training.batch_size
        measured: dict[str, Any] = {"evaluation": None, "without_data": None}
        if evaluation is not None:
            images, split = evaluation
            comparable = teacher if self._teacher_can_answer(images) else None
            measured["evaluation"] = {
                "split": split,
                "images": len(images),
                "figure": self.job.task.figure,
                "student": self.job.task.evaluate(student, images, batch_size, comparable),
                "teacher": self.job.task.evaluate(comparable, images.for_teacher, batch_size) if comparable else None,
            }
        measured["without_data"] = self._score_without_data(student, teacher, source)
        return measured

    def _teacher_can_answer(self, images: Images) -> bool:
        """Whether a teacher would have the student's classes, and the images hold what it reads."""
        if self.job.teacher is None:
            return True  # where there is one all the same, the job has trained it on its own labels
        if self.job.transfers(images.class_names):
            return False
        return self.job.teacher_reads == "image" or images.privileged is not None

    def keep(
        self, name: str, network: nn.Module, member: Member, evaluation: tuple[Images, str] | None
    ) -> dict[str, Any]:
        """Write a network that is not the student to `NAME.safetensors`; gives its `files`, and what the report says of it."""
        return self._keep(name, network, member, evaluation, ["safetensors"])

    def keep_ensemble(
        self, name: str, parts: Sequence[tuple[nn.Module, Member]], evaluation: tuple[Images, str] | None
    ) -> dict[str, Any]:
        """Write the mean of several networks' predictions in all forms that the student ships in, as `keep` does."""
        options = {"members": [{"network": member.network, "options": member.options} for _, member in parts]}
        whole = Ensemble([network.eval() for network, _ in parts], [self.job.contract] * len(parts))
        member = replace(parts[0][1], network="ensemble", options={"combine": whole.combine, **options})
        return self._keep(name, whole.to(self.device), member, evaluation, self._exports())

    def _exports(self) -> Sequence[str]:
        return self.job.spec.get("exports") or ["safetensors"]

    def _keep(
        self,
        name: str,
        network: nn.Module,
        member: Member,
        evaluation: tuple[Images, str] | None,
        formats: Sequence[str],
    ) -> dict[str, Any]:
        files = self._export(network, member, formats, name)
        figures = None
        if evaluation is not None:
            figures = self.job.task.evaluate(network.eval(), evaluation[0], self.job.training.batch_size)
        told = {"name": name, "network": member.network, "options": member.options, "evaluation": figures}
        return {**told, "files": files, "file_bytes": files[0]["path"].stat().st_size}

    def write(
        self,
        student: nn.Module,
        member: Member,
        teacher: nn.Module | None,
        figures: Mapping[str, Any],
        chosen: Mapping[str, str],
        history: Sequence[StageResult],
        seconds: float,
        kept: Sequence[Mapping[str, Any]] = (),
        stopped_early: Mapping[str, Any] | None = None,
        procedure: Mapping[str, Any] | None = None,
        warned: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Export the student, write `report.json`, and say every file as an artifact, those of `kept` networks too; gives
        the report's summary."""
        files = self._export(student, member, self._exports(), "student")
        self.shipped = self._card(student, member)
        content = report(
            job=self.job,
            student=student,
            teacher=teacher,
            figures=figures,
            chosen=chosen,
            stages=[asdict(result) for result in history],
            files=files,
            phases=self.phases(),
            seconds=seconds,
            environment=self.environment(),
            network=member.network,
            added_by=_added_by(member),
            parameters_alone=self._parameters_of(member),
            stopped_early=stopped_early,
            procedure=procedure,
            warned=warned,
            kept=[{key: value for key, value in each.items() if key != "files"} for each in kept],
        )
        files += [file for each in kept for file in each["files"]]
        files.append(self._write_report(content, self.job.folder / "output"))
        for file in files:
            path = Path(file["path"])
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            place = str(path.relative_to(self.job.folder))
            self.channel.say("artifact", **{**file, "path": place}, size=path.stat().st_size, sha256=digest)
        return content["summary"]

    def _score_without_data(
        self, student: nn.Module, teacher: nn.Module | None, source: Source
    ) -> dict[str, Any] | None:
        """The share of equal choices on fresh images.

        Raises:
            Collapsed: the teacher answers them all alike, so that nothing can have been learnt from it.
        """
        samples = source.samples(SCORED_SAMPLES) if teacher is not None else None
        if samples is None or teacher is None:
            return None
        with torch.no_grad():
            parts = samples.split(self.job.training.batch_size)
            ours, theirs = (torch.cat([network(part) for part in parts]) for network in (student, teacher))
        if len(samples) > 1 and spread(theirs) < LEAST_SPREAD:
            raise answered_alike(f"the teacher answers {len(samples)} synthetic images alike, different as they are")
        chosen = [chosen_of(logits, self.job.task.name) for logits in (ours, theirs)]
        agreement = float((chosen[0] == chosen[1]).float().mean())
        return {"samples": len(samples), "agreement_with_teacher": agreement}

    def _export(self, network: nn.Module, member: Member, formats: Sequence[str], stem: str) -> list[dict[str, Any]]:
        output = self.job.folder / "output"
        output.mkdir(exist_ok=True)
        meta = {"network": member.network, "options": member.options, "added_by": _added_by(member)}
        meta |= {"task": self.job.task.name, "output": self.job.task.output}
        meta |= {"initial_weights": begun_with(self.job)} if member.initial == GIVEN else {}
        return export(network, self.job.contract, self.job.class_names, formats, output, meta, stem)

    def _card(self, student: nn.Module, member: Member) -> dict[str, Any]:
        names = list(self.job.class_names)
        normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in student.modules())
        return {
            "network": member.network,
            "options": dict(member.options),
            "classes": self.job.classes,
            "class_names": names if len(json.dumps(names)) < MOST_NAMES_BYTES else [],
            "input": asdict(self.job.contract),
            "added_by": list(_added_by(member)),
            "findings": {"differentiable": True, "batch_norm": normalises},
        }

    def _parameters_of(self, member: Member) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build_network(member, self.job).parameters())

    @staticmethod
    def _write_report(content: Mapping[str, Any], output: Path) -> dict[str, Any]:
        path = output / "report.json"
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        return {"name": path.name, "path": path, "content_type": "application/json"}


@torch.no_grad()
def class_means(job: Job, teacher: nn.Module | None, source: Source, dataset: Images | None) -> Tensor | None:
    """The mean image of every class (K, C, H, W), by the teacher where images were synthesised or labels are not read, else
    by the dataset's labels; None where images have no single class each."""
    if job.task.field != "label":
        return None
    images = source.samples(SCORED_SAMPLES)
    label = None
    if images is None:
        if dataset is None:
            return None
        spread = torch.linspace(0, len(dataset) - 1, min(len(dataset), 4 * SCORED_SAMPLES)).long()
        part = dataset.at(spread.to(dataset.image.device))
        images, label = dataset.normalise(part.image), part.fields.get("label")
    if label is None or source.ignores_labels or (dataset is not None and dataset.classes != job.classes):
        if teacher is None or job.teacher_reads != "image":
            return None
        label = torch.cat([teacher(each).argmax(1) for each in images.split(job.training.batch_size)])
    known = label.ndim == 1 and int(label.max()) < job.classes
    return means_by_class(images, label, job.classes) if known else None


def _added_by(member: Member) -> tuple[str, ...]:
    """The names of the objectives that ship more than the member's network."""
    return tuple(spec["name"] for spec in deploying(member.objectives))
