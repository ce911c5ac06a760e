"""States of jobs, uploads and inspections, and the allowed transitions of jobs."""

from enum import StrEnum


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def sources_of(target: JobStatus) -> tuple[JobStatus, ...]:
    """The states from which `target` can be reached, for the WHERE of a conditional update."""
    return tuple(status for status, targets in TRANSITIONS.items() if target in targets)


class UploadStatus(StrEnum):
    WAITING = "waiting"  # created, no bytes yet
    INSPECTING = "inspecting"
    READY = "ready"
    REJECTED = "rejected"


class InspectionStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Phase(StrEnum):
    VALIDATING = "validating"
    CHECKING_TEACHER = "checking_teacher"
    TRAINING_TEACHER = "training_teacher"
    SYNTHESISING = "synthesising"
    DISTILLING = "distilling"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"
