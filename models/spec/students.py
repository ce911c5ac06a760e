"""The student of a finished job as the teacher of another job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, cast, select
from sqlalchemy.orm import Session

from models.records import Artifact, Job
from models.status import JobStatus

WEIGHTS = "student.safetensors"
UNFINISHED = tuple(status for status in JobStatus if not status.final)


def taught_by(job_id: str) -> ColumnElement[bool]:
    """The condition for unfinished jobs whose spec names this job."""
    named = cast(Job.resolved, String).contains(job_id)  # an id is long enough for a text search in the whole spec
    return Job.status.in_(UNFINISHED) & Job.deleted_at.is_(None) & (Job.id != job_id) & named


@dataclass(frozen=True)
class Student:
    """A job, and the file of its student's weights once it exists."""

    job: Job
    weights: Artifact | None

    @classmethod
    def of(cls, session: Session, job: Job) -> "Student":
        """From the current rows."""
        return cls(job, session.scalar(select(Artifact).where(Artifact.job_id == job.id, Artifact.name == WEIGHTS)))

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def waits(self) -> bool:
        """Whether the job has not ended yet."""
        return not JobStatus(self.job.status).final

    def refusal(self) -> str | None:
        """Why the student cannot be a teacher, as a sentence; None if it can, or if its job has not ended."""
        job = self.job
        if job.deleted_at is not None:
            return f"{job.id} was deleted"
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            how = "has failed" if job.status == JobStatus.FAILED else "was cancelled"
            return f"{job.id} {how}: it has no student that could be a teacher"
        if "safetensors" not in (job.resolved.get("exports") or ["safetensors"]):
            return f"{job.id} does not export its student as safetensors, the format that a teacher is loaded from"
        if self.waits:
            return None
        if self.weights is None:
            return (
                f"the artifacts of {job.id} have been removed: submit the job again, or upload its student as a teacher"
            )
        if job.student is None:
            return f"{job.id} is from a version that does not describe its student: upload its student as a teacher"
        if added := job.student.get("added_by"):
            more = f"{job.id} has a student that is more than the network {job.student['network']!r}"
            return f"{more}: layers added by {', '.join(added)} cannot be loaded as a teacher"
        return None

    def card(self) -> Mapping[str, Any]:
        """The description of the exported student (network, options, classes, class_names, input); before the job ends,
        the expected one."""
        if self.job.student is not None:
            return self.job.student
        expected = self.job.resolved.get("student") or {}
        known: dict[str, Any] = {"class_names": [], "options": {}, "classes": None, "input": None} | dict(expected)
        return known | {"network": known["network"] or f"student of {self.job.id}"}
