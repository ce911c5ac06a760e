"""The worker's error codes of jobs and uploads, with fault, meaning and hint.

The engine's own codes are in `worker/distillation/errors.py`.
"""

from dataclasses import dataclass
from typing import Literal

Fault = Literal["user", "job", "service"]


@dataclass(frozen=True)
class Failure:
    """One error code: whose fault it is, its meaning, and the default hint."""

    fault: Fault
    meaning: str
    hint: str


FAILURES = {
    "artifacts_not_stored": Failure(
        "service",
        "An artifact of the engine is invalid or could not be read.",
        "Retry the job. If the error occurs again, tell the operator.",
    ),
    "engine_crashed": Failure(
        "service",
        "The engine ended without an error message: it was killed, ran out of memory, or crashed in a library.",
        "Read the last lines of the attempt's log. If memory ran out, lower training/batch_size.",
    ),
    "inspection_memory": Failure(
        "user",
        "The inspection of an upload, or the check of a spec, needed more memory than there is. It is not tried again.",
        "Send a smaller file, smaller images or a smaller network.",
    ),
    "inspection_time": Failure(
        "user",
        "The inspection of an upload, or the check of a spec, took longer than it may. It is not tried again.",
        "Send fewer or larger files in the archive, or a smaller network. The operator can raise the limit.",
    ),
    "input_missing": Failure(
        "service",
        "An input of the job was deleted, or is missing or damaged in storage.",
        "Upload it again, then submit a new job.",
    ),
    "input_rejected": Failure(
        "user",
        "The inspection rejected an input of the job, or the dataset by which a teacher was to be recognised.",
        "Upload it again, then submit a new job.",
    ),
    "invalid_spec": Failure(
        "user", "The spec does not fit its inputs, as their inspection shows.", "Correct the spec and submit a new job."
    ),
    "job_memory": Failure(
        "job",
        "The job needed more memory than one job may use on the worker's machine. It is not tried again.",
        "Lower training/batch_size, or choose a smaller student or fewer taps.",
    ),
    "poison": Failure(
        "service",
        "Several attempts in a row were lost without progress. The message is that of the last one.",
        "Compare the attempts. If all have the same error, change the spec or the input.",
    ),
    "quota_exceeded": Failure(
        "user",
        "The canonical form of the upload does not fit into the storage of its key.",
        "Delete uploads or jobs to free storage, then send the bytes again.",
    ),
    "stalled": Failure(
        "service",
        "The engine sent no event for too long, and was killed. The job is retried automatically.",
        "Wait: the job is retried automatically.",
    ),
    "storage_away": Failure(
        "service",
        "The storage was unavailable. The job is retried automatically.",
        "Wait, or tell the operator.",
    ),
    "time_limit": Failure(
        "user",
        "The job ran longer than its key allows.",
        "Train for fewer steps, or set training/time_limit_minutes to less than the allowed time: at that limit the job exports"
        " its student as it is.",
    ),
    "upload_lost": Failure("service", "The bytes of an upload are missing or damaged in storage.", "Upload it again."),
    "source_refused": Failure(
        "user",
        "The source of a dataset by reference is not allowed, has no files, or is too large.",
        "Name a source that the operator allows, with the files of one dataset.",
    ),
    "worker_failed": Failure(
        "service",
        "The worker could not run the job or inspection. It is retried automatically.",
        "Tell the operator: a disk may be full.",
    ),
    "worker_lost": Failure(
        "service",
        "The worker crashed or lost its connection to the database. The job is retried automatically.",
        "Wait: the job is retried automatically.",
    ),
}
"""By code."""
