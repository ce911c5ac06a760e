"""The files that a run writes: the student, other kept networks, and the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation import student_file
from worker.distillation.export import card_of, export
from worker.distillation.export.card import Card
from worker.distillation.job import Job
from worker.distillation.networks.ensemble import Ensemble
from worker.distillation.procedure import GIVEN, Member
from worker.distillation.process.event_pipe import Channel
from worker.distillation.reporting.finished_run import FinishedRun, KeptNetwork
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.reporting.model_card import described, digest, write_card, write_config
from worker.distillation.reporting.report import added_by, initial_weights_of, report
from worker.distillation.student_file.expressions import CannotBeWritten

MOST_NAMES_BYTES = 200_000
"""Largest size of the class names in an event, which is one line; longer lists are in the student's files only."""


class Artifacts:
    """Writes to `output/` of the job's folder, and sends an event for each file after all are written."""

    def __init__(self, job: Job, channel: Channel, device: torch.device):
        self.job = job
        self.channel = channel
        self.device = device
        self.published: dict[str, Any] = {}
        """The published student as in the event `done`; empty before `publish`."""
        self.sample: Tensor | None = None
        """Images on which files that round activations are compared with the student."""
        self.notes: list[str] = []
        """Sentences for the report about files that could not be written."""

    def export_student(self, student: nn.Module, member: Member) -> list[dict[str, Any]]:
        """Write the student in the formats that the job requests; return `name`, `path` and `content_type` of each file."""
        return self._export("student", student, member, self._formats())

    def keep(self, name: str, network: nn.Module, member: Member, measurement: Measurement) -> KeptNetwork:
        """Write a network other than the student to `NAME.safetensors`."""
        return self._keep(name, network, member, measurement, formats=["safetensors"])

    def keep_ensemble(
        self, name: str, parts: Sequence[tuple[nn.Module, Member]], measurement: Measurement
    ) -> KeptNetwork:
        """Write an ensemble, the mean of several networks' predictions, in all formats of the student."""
        members = [{"network": member.network, "options": member.options} for _, member in parts]
        whole = Ensemble([network.eval() for network, _ in parts], [self.job.contract] * len(parts))
        options = {"combine": whole.combine, "members": members}
        member = replace(parts[0][1], network="ensemble", options=options)
        return self._keep(name, whole.to(self.device), member, measurement, formats=self._formats())

    def publish(self, finished: FinishedRun) -> dict[str, Any]:
        """Write `README.md`, `student.json` and `report.json`, send an event `artifact` for every file, and return the
        report's summary."""
        self.published = student_card(finished)
        output = self.job.folder / "output"
        content = report(finished)
        files = [*finished.files, *(file for kept in finished.kept for file in kept.files)]
        student = {**self.published, "class_names": list(self.job.class_names), "output": self.job.task.output}
        for write in (write_card, write_config):
            content["files"] = described(files)
            files.append(write(student, content, output))
        content["files"] = described(files)
        files.append(_write_report(content, output))
        for file in files:
            path = Path(file["path"])
            place = str(path.relative_to(self.job.folder))
            said = {"name": file["name"], "path": place, "content_type": file["content_type"]}
            self.channel.say("artifact", **said, size=path.stat().st_size, sha256=digest(path))
        return content["summary"]

    def _formats(self) -> Sequence[str]:
        return self.job.spec.get("exports") or ["safetensors"]

    def _keep(
        self, name: str, network: nn.Module, member: Member, measurement: Measurement, *, formats: Sequence[str]
    ) -> KeptNetwork:
        files = self._export(name, network, member, formats)
        return KeptNetwork(name=name, member=member, evaluation=measurement.metrics(network), files=files)

    def _export(self, stem: str, network: nn.Module, member: Member, formats: Sequence[str]) -> list[dict[str, Any]]:
        output = self.job.folder / "output"
        output.mkdir(exist_ok=True)
        contract, names, meta = self.job.contract, self.job.class_names, self._meta(member)
        files = export(
            network, contract=contract, class_names=names, formats=formats, folder=output, meta=meta, stem=stem
        )
        return files + self._code(stem, network, card_of(contract, names, meta), output)

    def card_of(self, member: Member) -> Card:
        """The metadata of the files of a network."""
        return card_of(self.job.contract, self.job.class_names, self._meta(member))

    def _meta(self, member: Member) -> dict[str, Any]:
        meta: dict[str, Any] = {"network": member.network, "options": member.options, "added_by": added_by(member)}
        meta |= {"task": self.job.task.name, "output": self.job.task.output}
        meta |= {"initial_weights": initial_weights_of(self.job)} if member.initial == GIVEN else {}
        return meta | {"sample": self.sample}

    def _code(self, stem: str, network: nn.Module, card: Card, output: Path) -> list[dict[str, Any]]:
        """Write `STEM.py`, which loads `STEM.safetensors`; no file and a note if that cannot be done."""
        weights, path = output / f"{stem}.safetensors", output / f"{stem}.py"
        if not weights.exists():
            self.notes.append(f"There is no {path.name}, because `exports` lacks `safetensors`.")
            return []
        try:
            packed = output / f"{stem}.packed.safetensors"
            student_file.write(network, card, weights, path, packed if packed.exists() else None)
        except CannotBeWritten as error:
            self.notes.append(f"There is no {path.name}: {error}.")
            return []
        return [{"name": path.name, "path": path, "content_type": "text/x-python"}]


def student_card(finished: FinishedRun) -> dict[str, Any]:
    """A student as plain data, from which it can be built again."""
    job = finished.job
    names = list(job.class_names)
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in finished.student.modules())
    return {
        "network": finished.member.network,
        "options": dict(finished.member.options),
        "classes": job.classes,
        "class_names": names if len(json.dumps(names)) < MOST_NAMES_BYTES else [],
        "input": asdict(job.contract),
        "added_by": list(added_by(finished.member)),
        "findings": {"differentiable": True, "batch_norm": normalises},
        **({"transforms": list(finished.entries)} if finished.entries else {}),
    }


def _write_report(content: Mapping[str, Any], output: Path) -> dict[str, Any]:
    path = output / "report.json"
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return {"name": path.name, "path": path, "content_type": "application/json"}
