"""The job file, which the worker writes for the engine (docs/architecture.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from worker.distillation import like_teacher, networks, programs, registry
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.contract_check.class_names import none_shared, other_order, partly_shared
from worker.distillation.contract_check.class_order import in_order
from worker.distillation.data.images import Images, class_names_of, has_field, has_split
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.ensemble import Ensemble, how_combined
from worker.distillation.task import Task
from worker.distillation.training import Training
from worker.distillation.transformed_network import rebuild, structural


@dataclass(frozen=True)
class Job:
    """A job file and its folder; paths in the file are relative to the folder."""

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
            raise SpecError([Problem("", f"{path} cannot be read as a job file: {error}")]) from error
        return cls.of(values, path.parent)

    @classmethod
    def of(cls, values: Any, folder: Path) -> "Job":
        """The job of a job file's content.

        Raises:
            SpecError: it lacks a key that its kind needs.
        """
        values = like_teacher.completed(programs.completed(values, folder))
        problems = [Problem(key, "is missing from the job file") for key in _missing(values)]
        if problems:
            raise SpecError(problems, "See the complete job file in docs/architecture.md.")
        return cls(values, folder)

    @property
    def kind(self) -> str:
        return str(self.values["kind"])

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.values["spec"]

    @property
    def task(self) -> Task:
        return registry.make("tasks", {"name": self.spec["task"]}, "/task")

    @property
    def training(self) -> Training:
        return Training.from_spec(self.spec["training"])

    @property
    def teachers(self) -> Sequence[Mapping[str, Any]]:
        """The job's teachers: none, one, or the members of an ensemble."""
        one = self.values.get("teacher")
        return self.values.get("teachers") or ([one] if one else [])

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """The job's teacher, or the first of an ensemble; its classes and input contract apply to the whole ensemble."""
        return self.teachers[0] if self.teachers else None

    @property
    def teacher_reads(self) -> str:
        """The image of a sample that the teacher reads: `image`, like the student, or `privileged`."""
        reads = str(self.spec["source"].get("teacher_reads", "image"))
        if reads != "image" and not self.teacher:
            raise SpecError([Problem("/source/teacher_reads", "needs a teacher, and the job has none")])
        return reads

    @property
    def contract(self) -> InputContract:
        """The student's input contract: the teacher's if both read the same image, else the spec's."""
        alike = self.teacher_reads == "image" and self.teacher
        given = self.teachers[0]["input"] if alike else self.spec["student"].get("input")
        if not given:
            why = "the teacher reads other images than the student" if self.teacher else "the job has no teacher"
            raise SpecError([Problem("/student/input", f"is required: {why}")])
        return read_contract(given)

    @property
    def teacher_contract(self) -> InputContract:
        """The input contract of the job's teacher, which must exist."""
        return read_contract(self.teachers[0]["input"])

    @property
    def classes(self) -> int:
        """Number of the student's classes: the spec's if given, else the teacher's."""
        own = self.spec["student"].get("classes")
        if own or self.teachers:
            return int(own or self.teachers[0]["classes"])
        raise SpecError([Problem("/student/classes", "is required: the job has no teacher")])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the student's outputs: the teacher's class names, or, in a transfer, those of the dataset."""
        path = self.path("dataset")
        own = class_names_of(path) if path else ()
        names = own if self.teacher is None or self.transfers(own) else self.teacher.get("class_names") or own
        return tuple(names) if len(names) == self.classes else tuple(map(str, range(self.classes)))

    def transfers(self, class_names: Sequence[str]) -> bool:
        """Whether the teacher has other classes than the student, whose labels have these names.

        True if the numbers of classes differ, or if both have class names and share none.
        """
        if self.teacher is None:
            return False
        disjoint = none_shared(class_names, self.teacher.get("class_names") or ())
        return disjoint or not self.task.alike(self.classes, self.teacher["classes"])

    def _class_order(self) -> tuple[str, ...]:
        """The class names in the order of the networks' outputs: the teacher's, or else the dataset's; empty if unknown."""
        path = self.path("dataset")
        return tuple((self.teacher or {}).get("class_names") or (class_names_of(path) if path else ()))

    def order_of_classes(self, path: Path) -> tuple[int, ...] | None:
        """The new number of each class of a dataset whose labels are renumbered, since the networks have its classes in another
        order; None where labels keep their numbers."""
        return other_order(class_names_of(path), self._class_order())

    def with_teacher_input(self, number: int, mean: Sequence[float], std: Sequence[float]) -> "Job":
        """The same job, one of whose teachers has another normalisation."""
        given = [dict(each) for each in self.teachers]
        given[number]["input"] = {**given[number]["input"], "mean": list(mean), "std": list(std)}
        several = given if len(given) > 1 else []
        return replace(self, values={**self.values, "teacher": None if several else given[0], "teachers": several})

    @property
    def initial_weights(self) -> str:
        """The student's initial weights: `teacher` (slices of it), `neuron_merging`, `random`, `pretrained`, or the id of an
        upload."""
        return str(self.spec["student"].get("initial_weights") or "random")

    def pretrained(self, pointer: str) -> Path | None:
        """The file of pretrained weights of the network at `/student` or `/teacher`; None if it starts from others."""
        path = (self.values.get("pretrained") or {}).get(pointer)
        return self.folder / path if path else None

    def device(self) -> torch.device:
        wanted = self.values.get("device", "auto")
        if wanted != "auto":
            return torch.device(wanted)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def path(self, name: str) -> Path | None:
        """A file that the job file names, or None."""
        return self.folder / self.values[name] if self.values.get(name) else None

    @property
    def files(self) -> dict[str, Path]:
        """Uploaded files that methods read, by id."""
        return {identifier: self.folder / path for identifier, path in (self.values.get("files") or {}).items()}

    def build_teacher(self, device: torch.device) -> nn.Module | None:
        """The teacher or ensemble of teachers, with its weights (without weights on the meta device).

        Raises:
            SpecError: the teachers differ in their number of classes or in the shapes of their images, or a file of weights
                does not fit its network.
        """
        if not self.teachers:
            return None
        differing = [each["classes"] for each in self.teachers if each["classes"] != self.teachers[0]["classes"]]
        if differing:
            first = self.teachers[0]["classes"]
            message = (
                f"all networks must have the same classes: the first has {first} classes, another has {differing[0]}"
            )
            raise SpecError([Problem("/teacher", message)])
        members = [self._build_one(each, device) for each in self.teachers]
        if len(members) == 1:
            return members[0]
        contracts = [read_contract(each["input"]) for each in self.teachers]
        return Ensemble(members, contracts, **how_combined(self.spec.get("teacher"))).to(device)

    def _build_one(self, teacher: Mapping[str, Any], device: torch.device) -> nn.Module:
        if teacher["network"] == programs.NETWORK:
            return programs.teacher(programs.file_of(teacher, self.folder), device)
        with torch.device(device):
            contract = read_contract(teacher["input"])
            network = networks.build(teacher["network"], teacher["classes"], contract, teacher.get("options") or {})
            rebuild(network, structural(teacher.get("transforms") or []))
        if device.type != "meta":
            try:
                network.load_state_dict(load_file(self.folder / teacher["weights"], device=str(device)))
            except RuntimeError as error:
                whose = teacher.get("id") or teacher["weights"]
                message = f"{whose} does not contain weights of {teacher['network']}: {str(error)[:300]}"
                raise SpecError([Problem("/teacher", message)]) from error
        return network

    def load_dataset(self, device: torch.device) -> Images | None:
        path = self.path("dataset")
        if path is None:
            return None
        if self.teacher_reads != "image" and not has_field(path, "train", self.teacher_reads):
            message = f"has no `{self.teacher_reads}` images, which the teacher reads"
            raise SpecError([Problem("/dataset", message)])
        return self._load_images(path, "train", device)

    def load_evaluation(self, device: torch.device, train: Images | None = None) -> tuple[Images, str] | None:
        """The evaluation images and the name of their split: the spec's, else `test` if it exists, else `train`. `train` are the
        training images, which are not loaded again."""
        path = self.path("evaluation")
        if path is None:
            return None
        split = (self.spec.get("evaluation") or {}).get("split") or ("test" if has_split(path, "test") else "train")
        if train is not None and split == "train" and path == self.path("dataset"):
            return train, split
        return self._load_images(path, split, device), split

    def _load_images(self, path: Path, split: str, device: torch.device) -> Images:
        """A split, including the images that the teacher reads if these are others and exist."""
        self._check_shared_names(path)
        order = self._class_order()
        images = in_order(Images.load(path, split, self.contract, device), order)
        reads = self.teacher_reads
        if reads == "image" or not has_field(path, split, reads):
            return images
        privileged = Images.load(path, split, self.teacher_contract, device, reads)
        return replace(images, privileged=in_order(privileged, order))

    def _check_shared_names(self, path: Path) -> None:
        """Check that a dataset has all class names of the teacher, or none of them.

        Raises:
            SpecError: the dataset shares only some class names with the teacher.
        """
        known = (self.teacher or {}).get("class_names") or ()
        own = class_names_of(path)
        if not self.task.labels_are_outputs or len(own) != len(known):
            return
        if differ := partly_shared(own, known):
            raise SpecError(
                [Problem("/dataset", f"shares only some class names with the teacher: {differ}")], NAMES_HINT
            )


NAMES_HINT = (
    "Name the same classes on both sides, in any order; or leave the teacher's names out, to match classes by number."
)
KEYS = {
    "distill": (
        "/spec/task", "/spec/student/network", "/spec/objectives", "/spec/procedure/name", "/spec/source/name", "/spec/training",
    ),
    "teacher": ("/upload", "/teacher/network"),
    "dataset": ("/upload",),
    "file": ("/upload", "/options/kind"),
    "checks": ("/checks",),
}  # fmt: skip
"""Required keys of a job file by kind, as JSON pointers."""
TEACHER_KEYS = ("network", "classes", "input")


def _missing(values: Any) -> list[str]:
    """Pointers to required keys that a job file lacks."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in (*KEYS, "check"):
        return ["/kind"]
    wanted = KEYS["distill" if kind == "check" else kind]
    described = kind == "teacher" and (values.get("teacher") or {}).get("network") is not None
    if described and not values.get("dataset"):
        wanted += ("/teacher/classes", "/teacher/input")  # otherwise they are found
    if kind in ("distill", "check"):
        places = ["/teacher"] if values.get("teacher") else []
        places += [f"/teachers/{number}" for number in range(len(values.get("teachers") or ()))]
        keys = TEACHER_KEYS + (("weights",) if kind == "distill" else ())
        wanted += tuple(f"{place}/{key}" for place in places for key in keys)
    return [pointer for pointer in wanted if not _has(values, pointer)]


def _has(values: Any, pointer: str) -> bool:
    for key in pointer.split("/")[1:]:
        if isinstance(values, list):
            values = {str(number): value for number, value in enumerate(values)}
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
