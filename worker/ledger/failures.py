"""Why a job or an upload may end, where it is the worker that says so: every code, whose fault it is, and what to do.

What the engine says itself is in `worker/distillation/errors.py`.
"""

from dataclasses import dataclass
from typing import Literal

Fault = Literal["user", "job", "service"]


@dataclass(frozen=True)
class Failure:
    """One kind of end: whose fault it is, what it means, and the hint where whoever finds it has none of its own."""

    fault: Fault
    meaning: str
    hint: str


FAILURES = {
    "artifacts_not_stored": Failure(
        "service",
        "What the engine left could not be stored as it is.",
        "Retry the job; if it comes again, tell the operator.",
    ),
    "engine_crashed": Failure(
        "service",
        "The engine ended without saying why: killed from outside, out of memory, or a mistake in a library.",
        "The last lines of the attempt's log may say more. Less memory is wanted by a lower training/batch_size.",
    ),
    "input_missing": Failure(
        "service",
        "An input of the job is gone from storage, or damaged there.",
        "Upload it again and submit a new job.",
    ),
    "input_rejected": Failure(
        "user", "An input of the job was refused by its inspection.", "Upload it again, then submit a new job."
    ),
    "invalid_spec": Failure("user", "The spec cannot work with what its inputs turned out to be.", "Submit a new job."),
    "poison": Failure(
        "service",
        "Attempt after attempt was lost without progress; the message tells of the last.",
        "Look at the attempts: if all ended alike, change the spec or the input that they have in common.",
    ),
    "stalled": Failure(
        "service", "The engine lived but said nothing for too long, and was stopped.", "It is tried again by itself."
    ),
    "storage_away": Failure(
        "service", "The storage did not answer; the job waits and is tried again.", "Wait, or tell the operator."
    ),
    "time_limit": Failure(
        "user",
        "The job took longer than the operator allows.",
        "Ask for less training, or set training/time_limit_minutes below that: at its own limit a job ships its student as it is.",
    ),
    "upload_lost": Failure(
        "service", "The bytes of an upload are gone from storage, or damaged there.", "Upload it again."
    ),
    "worker_failed": Failure(
        "service", "The worker could not carry it out; it is tried again.", "Tell the operator: a disk may be full."
    ),
    "worker_lost": Failure(
        "service",
        "The worker died, or was cut off from the database; the job is tried again.",
        "Nothing is to be done: it goes on by itself.",
    ),
}
"""By code."""
