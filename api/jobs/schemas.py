"""Response bodies of jobs and their outputs."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.bodies import ResponseBody
from api.http.problem_documents import PointedError
from models.status import JobStatus, Phase

JOB = "job_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
TEACHER = "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"


class JobError(ResponseBody):
    """Why a job failed."""

    code: str = Field(description="Error code, see docs/errors.md.")
    message: str = Field(description="What went wrong.")
    hint: str | None = Field(None, description="What to do about it.")
    fault: str | None = Field(None, description="Cause of the failure: `user`, `job` or `service`.")
    errors: list[PointedError] = Field(default_factory=list, description="Problems of the spec with their pointers.")


class PhaseTimes(ResponseBody):
    """Start and end of a phase; the end is null while the phase runs."""

    started_at: datetime | None = None
    ended_at: datetime | None = None


class AttemptBody(ResponseBody):
    """One try at a job by one worker."""

    number: int
    outcome: str | None = Field(
        description="`succeeded`, `failed`, `cancelled`, `drained` (its worker shut down) or `lost`; null while it runs."
    )
    error: JobError | None = Field(description="Why the attempt failed or was lost.")
    started_at: datetime
    ended_at: datetime | None
    links: dict[str, str] = Field(description="`log` is the engine's log, once the attempt has ended.")


class MetricValue(ResponseBody):
    """The newest value of a metric."""

    step: int = Field(description="Step, counted over the whole job.")
    value: float | None = Field(description="Value; null if it was infinite or NaN.")


class JobSummary(ResponseBody):
    """A job in a list."""

    id: str
    name: str
    labels: dict[str, str]
    status: JobStatus
    phase: Phase | None = Field(description="Phase of the newest attempt.")
    stage: str | None = Field(description="Current stage of the procedure.")
    reason: str | None = Field(description="Why the job waits, or why it was queued again.")
    progress: dict[str, Any] | None = Field(
        description="Step, number of steps of the stage, epoch, and completed fraction of the whole job."
    )
    attempt: int = Field(description="Number of the newest attempt; 0 before the first.")
    priority: int
    error: JobError | None
    stopped_early: Literal["time_limit"] | None = Field(
        None, description="What stopped training before its last step in a succeeded job; null if nothing did."
    )
    retry_of: str | None = Field(description="Id of the job that this job retries.")
    experiment_id: str | None = Field(None, description="Id of the experiment to which the job belongs.")
    variant: str | None = Field(None, description="Variant of the experiment.")
    version: int = Field(description="Number that rises at every change.")
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class JobBody(JobSummary):
    """A job with all its fields."""

    phases: dict[str, PhaseTimes] = Field(description="Phases that were entered, with their times.")
    attempts: list[AttemptBody] = Field(description="The 20 newest attempts, newest first.")
    expected_end_at: datetime | None = Field(
        description="Expected end, estimated from the speed of the last minutes; null if the job does not run or its speed"
        " is not known yet."
    )
    request_id: str | None = Field(
        None, description="Id of the request that submitted the job, as in the service's log."
    )
    queue_position: int | None = Field(
        description="Position in the queue, 1 for the next job. Null if the job is not queued and ready, if at least 100"
        " jobs are ahead of it, or if its key has reached its limit of running jobs."
    )
    metrics: dict[str, MetricValue] = Field(description="Newest value of every metric.")
    artifacts_expire_at: datetime | None = Field(
        None, description="When the artifacts are or were removed; null if there are none or they do not expire."
    )
    history_expire_at: datetime | None = Field(
        None,
        description="When events and metrics are or were removed; null if they do not expire or the job has not ended.",
    )
    spec: dict[str, Any] = Field(description="The spec as sent.")
    resolved: dict[str, Any] = Field(description="The spec with every default written out.")

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


class Validated(ResponseBody):
    """Result of a validation that found no problems."""

    resolved: dict[str, Any] = Field(description="The spec with every default written out.")
    waits_for: str | None = Field(
        description="What a job with this spec would wait for before it runs; null if nothing."
    )
    checked: list[Literal["spec", "networks"]] = Field(
        description="What was checked. `spec`: names, ranges and findings of the inputs. `networks`: an engine has built"
        " all networks."
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


class EventBody(ResponseBody):
    """One event of a job."""

    seq: int = Field(description="Number of the event within the job, from 1 without gaps.")
    attempt: int
    type: str = Field(description="`status`, `phase`, `progress`, `log`, `checkpoint`, `preview` or `artifact`.")
    level: Literal["info", "warning", "error"]
    message: str
    data: dict[str, Any] | None
    links: dict[str, str] = Field(description="`self` is the preview or artifact of an event of that type.")
    created_at: datetime


class MetricBody(ResponseBody):
    """One value of a metric."""

    name: str
    step: int = Field(description="Step, counted over the whole job.")
    value: float | None = Field(description="Value; null if it was infinite or NaN.")
    attempt: int
    created_at: datetime


class BlobBody(ResponseBody):
    """A file that a job made."""

    id: str
    name: str
    attempt: int
    content_type: str
    size: int
    sha256: str
    created_at: datetime
    links: dict[str, str] = Field(description="`self` is the URL of the bytes.")


class ArtifactBody(BlobBody):
    """A file of a succeeded job."""


class PreviewBody(BlobBody):
    """A preview image of an attempt, available while it runs."""

    step: int
