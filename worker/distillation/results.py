"""What a run leaves: figures, pictures, exports and the report; and the times of its phases."""

import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.distillation.channel import Channel
from worker.distillation.composition import deploying
from worker.distillation.data.images import Images
from worker.distillation.export import export
from worker.distillation.export.pictures import write_grid
from worker.distillation.export.report import report
from worker.distillation.job import Job
from worker.distillation.lineage import build_network
from worker.distillation.procedure import Member, StageResult
from worker.distillation.source import Source
from worker.distillation.tasks import classification

PREVIEW_SECONDS = 10.0
SCORED_SAMPLES = 1024


class Results:
    """Writes to `output/` and `previews/` of the job's folder, and says so on the channel."""

    def __init__(self, job: Job, channel: Channel, device: torch.device):
        self.job, self.channel, self.device = job, channel, device
        self._phases: dict[str, float] = {}
        self._phase: str | None = None
        self._since = time.monotonic()
        self._last_preview = -PREVIEW_SECONDS

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
        """Write the source's pictures, if the last ones are some seconds old."""
        if time.monotonic() - self._last_preview < PREVIEW_SECONDS:
            return
        for name, images in source.previews().items():
            path = self.job.folder / "previews" / f"{name}-{step:08d}.png"
            path.parent.mkdir(exist_ok=True)
            write_grid(images, self.job.contract, path)
            place = str(path.relative_to(self.job.folder))
            self.channel.say("preview", name=path.name, path=place, content_type="image/png", step=step)
            self._last_preview = time.monotonic()

    def figures(
        self, student: nn.Module, teacher: nn.Module | None, evaluation: tuple[Images, str] | None, source: Source
    ) -> dict[str, Any]:
        """What was measured of student and teacher; each part is None where it could not be measured."""
        batch_size = self.job.training.batch_size
        measured: dict[str, Any] = {"evaluation": None, "without_data": None}
        if evaluation is not None:
            images, split = evaluation
            comparable = teacher if teacher is not None and self.job.classes == self.job.teacher["classes"] else None
            measured["evaluation"] = {
                "split": split,
                "images": len(images),
                "student": classification.evaluate(student, images, batch_size, comparable),
                "teacher": classification.evaluate(comparable, images, batch_size) if comparable is not None else None,
            }
        measured["without_data"] = self._score_without_data(student, teacher, source)
        return measured

    def keep(
        self, name: str, network: nn.Module, member: Member, evaluation: tuple[Images, str] | None
    ) -> dict[str, Any]:
        """Write a network that is not the student to `NAME.safetensors`; gives its `file`, and what the report says of it."""
        (file,) = self._export(network, member, ["safetensors"], name)
        figures = None
        if evaluation is not None:
            figures = classification.evaluate(network.eval(), evaluation[0], self.job.training.batch_size)
        told = {"name": name, "network": member.network, "options": member.options, "evaluation": figures}
        return {**told, "file": file, "file_bytes": file["path"].stat().st_size}

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
    ) -> dict[str, Any]:
        """Export the student, write `report.json`, and say every file as an artifact, those of `kept` networks too; gives
        the report's summary."""
        files = self._export(student, member, self.job.spec.get("exports") or ["safetensors"], "student")
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
            kept=[{key: value for key, value in each.items() if key != "file"} for each in kept],
        )
        files += [each["file"] for each in kept]
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
        samples = source.samples(SCORED_SAMPLES) if teacher is not None else None
        if samples is None or teacher is None:
            return None
        with torch.no_grad():
            pairs = [
                (student(part).argmax(1), teacher(part).argmax(1))
                for part in samples.split(self.job.training.batch_size)
            ]
        agreement = sum(int((ours == theirs).sum()) for ours, theirs in pairs) / len(samples)
        return {"samples": len(samples), "agreement_with_teacher": agreement}

    def _export(self, network: nn.Module, member: Member, formats: Sequence[str], stem: str) -> list[dict[str, Any]]:
        output = self.job.folder / "output"
        output.mkdir(exist_ok=True)
        meta = {"network": member.network, "options": member.options, "added_by": _added_by(member)}
        return export(network, self.job.contract, self.job.class_names, formats, output, meta, stem)

    def _parameters_of(self, member: Member) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build_network(member, self.job).parameters())

    @staticmethod
    def _write_report(content: Mapping[str, Any], output: Path) -> dict[str, Any]:
        path = output / "report.json"
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        return {"name": path.name, "path": path, "content_type": "application/json"}


def _added_by(member: Member) -> tuple[str, ...]:
    """The names of the objectives that ship more than the member's network."""
    return tuple(spec["name"] for spec in deploying(member.objectives))
