"""What can be tried for a budget: students that differ in their size and in whether they compute in integers."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.distillation import registry
from worker.distillation.budget.limits import POINTER, Budget
from worker.distillation.errors import Problem, SpecError
from worker.distillation.job import Job
from worker.distillation.transformed_network import place_of

STEPS = 32
"""A student has n of 32 parts of its channels, or of its parameters."""


@dataclass(frozen=True)
class Candidate:
    """A student: `step` of 32 parts of what `way` reduces, and perhaps rounded to integers."""

    rounded: bool = False
    way: str | None = None
    step: int = STEPS

    @property
    def share(self) -> float:
        """What remains of the channels, or of the parameters."""
        return self.step / STEPS

    def changes(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What differs in the spec: parts of its `student`, and all its `transforms`."""
        student = dict(spec["student"])
        own = {"width": student.get("width", 1.0) * self.share} if self.way == "width" else {}
        added = [_transform(self.way, keep=self.share)] if self.way in ("prune_channels", "factorise") else []
        added += [_transform("int8")] if self.rounded else []
        transforms = sorted([*(spec.get("transforms") or ()), *added], key=lambda each: place_of(each["name"]))
        return {"student": own, "transforms": transforms}

    def job(self, job: Job) -> Job:
        """The job with this student.

        Raises:
            SpecError: there is no such student.
        """
        return with_changes(job, self.changes(job.spec))

    def words(self) -> str:
        """What it is, for messages."""
        size = f"{self.step} of {STEPS} parts of the {'parameters' if self.way == 'factorise' else 'channels'} ({self.way})"
        parts = ([size] if self.way else []) + (["int8"] if self.rounded else [])
        return " and ".join(parts) or "the whole student"


def with_changes(job: Job, changes: Mapping[str, Any]) -> Job:
    """The job with other `transforms` and other parts of its student; a student that is like its teacher is described anew."""
    student = dict(job.spec["student"])
    if student.get("like"):
        for name in ("network", "options", "program"):
            student.pop(name, None)
    spec = {**job.spec, **changes, "student": student | changes["student"]}
    return Job.of({**job.values, "spec": spec}, job.folder)


def ways(budget: Budget, spec: Mapping[str, Any]) -> Iterator[str]:
    """What may reduce this student, in the order of the budget.

    Raises:
        SpecError: the job has a transform already that the budget may add.
    """
    used = [each["name"] for each in spec.get("transforms") or ()]
    twice = [index for index, name in enumerate(budget.allow) if name in used]
    if twice:
        raise SpecError(
            [
                Problem(f"{POINTER}/allow/{index}", f"{budget.allow[index]} is among the job's `transforms` already")
                for index in twice
            ]
        )
    like = bool(spec["student"].get("like"))
    for name in budget.allow:
        narrows = name == "width" if like and "width" in budget.allow else name == "prune_channels"
        if narrows or name == "factorise":
            yield name


def _transform(name: str | None, **given: Any) -> dict[str, Any]:
    """A transform with all its parameters, as in a resolved spec."""
    assert name is not None
    return {"name": name, **asdict(registry.find("transforms", name).Parameters(**given))}
