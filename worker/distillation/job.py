"""The job file: what the worker hands to the engine (docs/architecture.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from worker.distillation import networks
from worker.distillation.data.images import Images, has_split
from worker.distillation.errors import Problem, SpecError
from worker.distillation.source import InputContract
from worker.distillation.training import Training


@dataclass(frozen=True)
class Job:
    """A job file and its folder; paths in it are relative to that folder."""

    values: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read a job file.

        Raises:
            SpecError: it cannot be read, is not JSON, or lacks a key that its kind needs.
        """
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise SpecError([Problem("", f"{path} is no job file that can be read: {error}")]) from error
        problems = [Problem(key, "is missing from the job file") for key in _missing(values)]
        if problems:
            raise SpecError(problems, "docs/architecture.md has a whole job file.")
        return cls(values, path.parent)

    @property
    def kind(self) -> str:
        return str(self.values["kind"])

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.values["spec"]

    @property
    def training(self) -> Training:
        return Training.from_spec(self.spec["training"])

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        return self.values.get("teacher")

    @property
    def contract(self) -> InputContract:
        """What the student reads: the teacher's contract, else the one that the spec gives."""
        given = self.teacher["input"] if self.teacher else self.spec["student"].get("input")
        if not given:
            raise SpecError(
                [Problem("/student/input", "say the input contract, since there is no teacher to take it from")]
            )
        return read_contract(given)

    @property
    def classes(self) -> int:
        """The student's classes: its own where the spec says so, else the teacher's."""
        own = self.spec["student"].get("classes")
        if own or self.teacher:
            return int(own or self.teacher["classes"])
        raise SpecError(
            [Problem("/student/classes", "say the number of classes, since there is no teacher to take it from")]
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        names = self.teacher.get("class_names") if self.teacher else None
        return tuple(names or (str(number) for number in range(self.classes)))

    def device(self) -> torch.device:
        wanted = self.values.get("device", "auto")
        if wanted != "auto":
            return torch.device(wanted)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def path(self, name: str) -> Path | None:
        """A file that the job file names, or None."""
        return self.folder / self.values[name] if self.values.get(name) else None

    def build_teacher(self, device: torch.device) -> nn.Module | None:
        """The teacher with its weights (without them on the meta device)."""
        if self.teacher is None:
            return None
        contract = read_contract(self.teacher["input"])
        with torch.device(device):
            network = networks.build(
                self.teacher["network"], self.teacher["classes"], contract, self.teacher.get("options", {})
            )
        if device.type != "meta":
            network.load_state_dict(load_file(self.folder / self.teacher["weights"], device=str(device)))
        return network

    def load_dataset(self, device: torch.device) -> Images | None:
        path = self.path("dataset")
        return Images.load(path, "train", self.contract, device) if path else None

    def load_evaluation(self, device: torch.device) -> tuple[Images, str] | None:
        """The evaluation images and the name of their split: the one that the spec names, else `test` where there is one."""
        path = self.path("evaluation")
        if path is None:
            return None
        split = (self.spec.get("evaluation") or {}).get("split") or ("test" if has_split(path, "test") else "train")
        return Images.load(path, split, self.contract, device), split


KEYS = {
    "distill": (
        "/spec/student/network", "/spec/objectives", "/spec/procedure/name", "/spec/source/name", "/spec/training",
    ),
    "teacher": ("/upload", "/teacher/network", "/teacher/classes", "/teacher/input"),
    "dataset": ("/upload",),
    "file": ("/upload", "/options/kind"),
}  # fmt: skip
"""What a job file of each kind must hold, as JSON pointers."""
TEACHER_KEYS = ("/teacher/network", "/teacher/classes", "/teacher/input")


def _missing(values: Any) -> list[str]:
    """Pointers to what a job file lacks."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in (*KEYS, "check"):
        return ["/kind"]
    wanted = KEYS["distill" if kind == "check" else kind]
    if kind in ("distill", "check") and values.get("teacher"):
        wanted += TEACHER_KEYS + (("/teacher/weights",) if kind == "distill" else ())
    return [pointer for pointer in wanted if not _has(values, pointer)]


def _has(values: Any, pointer: str) -> bool:
    for key in pointer.split("/")[1:]:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def read_contract(values: Mapping[str, Any]) -> InputContract:
    """An input contract from JSON."""
    sizes = (int(values[name]) for name in ("channels", "height", "width"))
    return InputContract(*sizes, mean=tuple(values["mean"]), std=tuple(values["std"]))
