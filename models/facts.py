"""What is known of a job's inputs when its spec is resolved and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.records import Dataset, Teacher


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher as its user announced it; `findings` is None until it is inspected."""

    network: str
    classes: int
    input: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset; `findings` is None until it is inspected, and then nothing below is known either."""

    findings: Mapping[str, Any] | None = None

    @property
    def inspected(self) -> bool:
        return self.findings is not None

    @property
    def classes(self) -> int | None:
        return None if self.findings is None else int(self.findings["classes"])

    @property
    def channels(self) -> int | None:
        return None if self.findings is None else int(self.findings["image"]["channels"])

    @property
    def splits(self) -> Mapping[str, int]:
        """Images by split."""
        return {} if self.findings is None else dict(self.findings["splits"])

    def per_class(self, split: str) -> list[tuple[str, int]]:
        """Images of each class in a split, by the class's name, as far as inspection listed them."""
        if self.findings is None or "per_class" not in self.findings:
            return []
        return list(zip(self.findings["class_names"], self.findings["per_class"].get(split, ()), strict=False))


@dataclass(frozen=True)
class Facts:
    """The inputs that a spec names: None where it names none."""

    teacher: TeacherFacts | None = None
    dataset: DatasetFacts | None = None
    evaluation: DatasetFacts | None = None

    @classmethod
    def of(cls, teacher: Teacher | None, dataset: Dataset | None, evaluation: Dataset | None) -> "Facts":
        """What the records of the inputs hold now."""
        return cls(
            teacher=TeacherFacts(teacher.network, teacher.classes, teacher.input, teacher.options, teacher.findings)
            if teacher
            else None,
            dataset=DatasetFacts(dataset.findings) if dataset else None,
            evaluation=DatasetFacts(evaluation.findings) if evaluation else None,
        )
