"""Facts about a job's inputs, for the resolution and the checks of its spec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.records import Dataset, File, Teacher
from models.spec.network_spec import FIND
from models.spec.students import Student


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher as its record describes it. `findings` is None until it is inspected; `pointer` is its place in the
    spec."""

    network: str
    classes: int
    input: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Any] | None = None
    pointer: str = "/teacher"
    class_names: Sequence[str] = ()

    @classmethod
    def of(cls, record: Teacher | Student, pointer: str = "/teacher") -> "TeacherFacts | None":
        """The facts of an upload or of a job's student; None while a student's classes or input are unknown."""
        if isinstance(record, Teacher):
            if not record.classes or not record.input or record.network == FIND:
                return None  # its inspection is to find them
            given = (record.network, record.classes, record.input, record.options, record.findings)
            return cls(*given, pointer=pointer, class_names=record.class_names or ())
        card = record.card()
        if card["classes"] is None or card["input"] is None:
            return None
        given = (card["network"], card["classes"], card["input"], card["options"], card.get("findings"))
        return cls(*given, pointer=pointer, class_names=card["class_names"])


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset. Until it is inspected, `findings` is None and the properties have no information."""

    findings: Mapping[str, Any] | None = None

    @property
    def inspected(self) -> bool:
        return self.findings is not None

    @property
    def classes(self) -> int | None:
        return None if self.findings is None else int(self.findings["classes"])

    @property
    def labels(self) -> str:
        """Kind of label of each image: `class`, `multi_label`, `target`, `mask`, `depth`, `boxes` or `none`."""
        return str((self.findings or {}).get("labels", "class"))

    @property
    def channels(self) -> int | None:
        return None if self.findings is None else int(self.findings["image"]["channels"])

    @property
    def splits(self) -> Mapping[str, int]:
        """Number of images by split."""
        return {} if self.findings is None else dict(self.findings["splits"])

    def per_class(self, split: str) -> list[tuple[str, int]]:
        """Class name and number of images of each class in a split; empty if the findings do not list them."""
        if self.findings is None or "per_class" not in self.findings:
            return []
        return list(zip(self.findings["class_names"], self.findings["per_class"].get(split, ()), strict=False))


@dataclass(frozen=True)
class Facts:
    """The inputs that a spec names, None for those that it does not. `others` are the further teachers of an
    ensemble."""

    teacher: TeacherFacts | None = None
    dataset: DatasetFacts | None = None
    evaluation: DatasetFacts | None = None
    others: tuple[TeacherFacts, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)
    """The files that methods name, by their places in the spec (JSON pointers)."""

    @classmethod
    def of(
        cls,
        teachers: Mapping[str, Teacher | Student],
        dataset: Dataset | None,
        evaluation: Dataset | None,
        files: Mapping[str, File] | None = None,
    ) -> "Facts":
        """The facts that the records hold now; `teachers` and `files` are keyed by their places in the spec."""
        known = [TeacherFacts.of(record, pointer) for pointer, record in teachers.items()]
        first, *others = known or [None]
        return cls(
            teacher=first,
            dataset=DatasetFacts(dataset.findings) if dataset else None,
            evaluation=DatasetFacts(evaluation.findings) if evaluation else None,
            others=tuple(each for each in others if each is not None),
            files=files or {},
        )
