"""How jobs, and what comes of them, look over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.bodies import Shown
from api.http.problem_documents import Pointed
from models.status import JobStatus, Phase

JOB = "job_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
TEACHER = "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"


class JobError(Shown):
    """Why a job failed."""

    code: str = Field(description="A word that names the kind of failure.")
    message: str = Field(description="What went wrong.")
    hint: str | None = Field(None, description="What to do about it.")
    fault: str | None = Field(None, description="Whose it is: `user`, `job` or `service`.")
    errors: list[Pointed] = Field(default_factory=list, description="What is wrong with the spec, each at its place.")


class PhaseTimes(Shown):
    """When a phase began and ended; null while it runs."""

    started_at: datetime | None = None
    ended_at: datetime | None = None


class AttemptBody(Shown):
    """One try at a job by one worker."""

    number: int
    outcome: str | None = Field(
        description="`succeeded`, `failed`, `cancelled`, `drained` (its worker left) or `lost`; null while it runs."
    )
    error: JobError | None = Field(description="Why it was lost or failed, and so why the job was queued again.")
    started_at: datetime
    ended_at: datetime | None
    links: dict[str, str] = Field(description="`log` is what the engine wrote, once the attempt has ended.")


class Figure(Shown):
    """The newest value of a metric."""

    step: int = Field(description="Counted over the whole job.")
    value: float | None = Field(description="Null where it was infinite or not a number.")


class JobSummary(Shown):
    """A job in a list."""

    id: str
    name: str
    labels: dict[str, str]
    status: JobStatus
    phase: Phase | None = Field(description="What the newest attempt is doing.")
    stage: str | None = Field(description="Which stage of the procedure.")
    reason: str | None = Field(description="Why it waits, or why it was queued again.")
    progress: dict[str, Any] | None = Field(
        description="Step, steps of the stage, epoch, and fraction of the whole job."
    )
    attempt: int = Field(description="How often it was begun.")
    priority: int
    error: JobError | None
    stopped_early: Literal["time_limit"] | None = Field(
        None, description="What stopped the training of a job that succeeded before its end; null if nothing did."
    )
    retry_of: str | None = Field(description="The job that this one repeats.")
    version: int = Field(description="Rises at every change.")
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobBody(JobSummary):
    """A job, whole."""

    phases: dict[str, PhaseTimes] = Field(description="The phases that were entered, with times.")
    attempts: list[AttemptBody] = Field(description="The newest tries, the newest first; 20 at most.")
    expected_end_at: datetime | None = Field(
        description="As the pace of the last minutes has it; null unless it runs and has a pace."
    )
    request_id: str | None = Field(None, description="Names its submission in the service's logs.")
    queue_position: int | None = Field(
        description="1 for the next one; null unless it is queued and ready, and where 100 or more are before it or its key runs as many as it may."
    )
    metrics: dict[str, Figure] = Field(description="The newest value of every metric.")
    artifacts_expire_at: datetime | None = Field(
        None, description="When its artifacts are removed, or were; null if there are none, or they stay."
    )
    history_expire_at: datetime | None = Field(
        None, description="When its events and metrics are removed, or were; null if they stay, or it has not ended."
    )
    spec: dict[str, Any] = Field(description="As it was sent.")
    resolved: dict[str, Any] = Field(description="With every default written out.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": JOB,
                "name": "half-lenet",
                "labels": {"team": "vision"},
                "status": "running",
                "phase": "distilling",
                "stage": "student",
                "reason": None,
                "progress": {"stage": "student", "step": 1200, "steps": 3000, "fraction": 0.4, "epoch": 12},
                "attempt": 1,
                "priority": 0,
                "error": None,
                "stopped_early": None,
                "retry_of": None,
                "version": 31,
                "cancel_requested_at": None,
                "created_at": "2026-11-21T09:00:00Z",
                "started_at": "2026-11-21T09:00:02Z",
                "finished_at": None,
                "links": {"self": f"http://127.0.0.1:8000/v1/jobs/{JOB}"},
                "phases": {"distilling": {"started_at": "2026-11-21T09:00:04Z", "ended_at": None}},
                "attempts": [
                    {
                        "number": 1,
                        "outcome": None,
                        "error": None,
                        "started_at": "2026-11-21T09:00:02Z",
                        "ended_at": None,
                        "links": {},
                    }
                ],
                "expected_end_at": "2026-11-21T09:02:10Z",
                "request_id": "0190f3a2b4c87d1e9f00a1b2c3d4e5f6",
                "queue_position": None,
                "metrics": {"loss": {"step": 1200, "value": 0.31}},
                "artifacts_expire_at": None,
                "history_expire_at": None,
                "spec": {"teacher": TEACHER, "student": {"network": "lenet5_half"}},
                "resolved": {"teacher": TEACHER, "student": {"network": "lenet5_half", "options": {}}},
            }
        }
    )


class Validated(Shown):
    """What a dry run found: nothing wrong, as far as was checked."""

    resolved: dict[str, Any] = Field(description="The spec with every default written out.")
    waits_for: str | None = Field(description="What such a job would wait for before it runs; null if nothing.")
    checked: list[Literal["spec", "networks"]] = Field(
        description="`spec`: names, ranges, and what is known of the inputs. `networks`: an engine has built everything."
    )
    unchecked: str | None = Field(None, description="Why the networks were not built; null if they were.")
    facts: dict[str, Any] | None = Field(None, description="What the engine found when it built the networks.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "resolved": {"teacher": TEACHER, "student": {"network": "lenet5_half", "options": {}}},
                "waits_for": None,
                "checked": ["spec", "networks"],
                "unchecked": None,
                "facts": {"stages": ["student"], "student": {"parameters": 15_738}},
            }
        }
    )


class EventBody(Shown):
    """Something that happened to a job."""

    seq: int = Field(description="Counts a job's events from 1, without gaps.")
    attempt: int
    type: str = Field(description="status, phase, progress, log, checkpoint, preview or artifact.")
    level: Literal["info", "warning", "error"]
    message: str
    data: dict[str, Any] | None
    links: dict[str, str] = Field(description="`self` is the picture or file that the event tells of, if it does.")
    created_at: datetime


class MetricBody(Shown):
    """One figure of a series."""

    name: str
    step: int = Field(description="Counted over the whole job.")
    value: float | None = Field(description="Null where it was infinite or not a number.")
    attempt: int
    created_at: datetime


class BlobBody(Shown):
    """Bytes that a job made."""

    id: str
    name: str
    attempt: int
    content_type: str
    size: int
    sha256: str
    created_at: datetime
    links: dict[str, str] = Field(description="`self` is where to GET the bytes.")


class ArtifactBody(BlobBody):
    """A file of a succeeded job."""


class PreviewBody(BlobBody):
    """A picture of an attempt, visible while it runs."""

    step: int
