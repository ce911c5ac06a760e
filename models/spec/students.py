"""The student of a job, where it is to teach another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, cast, select
from sqlalchemy.orm import Session

from models.records import Artifact, Job
from models.status import JobStatus

WEIGHTS = "student.safetensors"
UNFINISHED = tuple(status for status in JobStatus if not status.final)


def pupils_of(job_id: str) -> ColumnElement[bool]:
    """The jobs that have not ended and whose spec names this job."""
    named = cast(Job.resolved, String).contains(job_id)  # long enough to be found as text, wherever it stands
    return Job.status.in_(UNFINISHED) & Job.deleted_at.is_(None) & (Job.id != job_id) & named


@dataclass(frozen=True)
class Student:
    """A job, and the file of its student's weights once it is there."""

    job: Job
    weights: Artifact | None

    @classmethod
    def of(cls, session: Session, job: Job) -> "Student":
        """As the rows are now."""
        return cls(job, session.scalar(select(Artifact).where(Artifact.job_id == job.id, Artifact.name == WEIGHTS)))

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def waits(self) -> bool:
        """Whether the job has not ended yet."""
        return not JobStatus(self.job.status).final

    def refusal(self) -> str | None:
        """A sentence on why it cannot teach; None if it can, or may yet."""
        job = self.job
        if job.deleted_at is not None:
            return f"{job.id} was deleted"
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            how = "has failed" if job.status == JobStatus.FAILED else "was cancelled"
            return f"{job.id} {how}: there is no student of it that could teach"
        if "safetensors" not in (job.resolved.get("exports") or ["safetensors"]):
            return f"{job.id} does not export its student as safetensors: nothing can be loaded from it"
        if self.waits:
            return None
        if self.weights is None:
            return f"the artifacts of {job.id} have been removed: submit it again, or upload its student as a teacher"
        if job.student is None:
            return f"{job.id} was made before students could teach: upload its student as a teacher"
        if added := job.student.get("added_by"):
            more = f"{job.id} ships more than the network {job.student['network']!r}"
            return f"{more}: what {', '.join(added)} adds cannot be loaded as a teacher"
        return None

    def card(self) -> Mapping[str, Any]:
        """What shipped (network, options, classes, class_names, input); before that, what is known of what will."""
        if self.job.student is not None:
            return self.job.student
        expected = self.job.resolved.get("student") or {}
        return {"class_names": [], "options": {}, "classes": None, "input": None} | dict(expected)
