"""The outcome of an engine's run, from its final event and the request that ended it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.settings import settings
from worker.attempt.engine_watch import Request
from worker.engine.engine_process import Exit
from worker.ledger import ends

DISK_ERROR = "disk_error"
"""The engine's code for a disk that is full or fails (worker/distillation/errors.py)."""

Outcome = Literal["succeeded", "failed", "cancelled", "drained", "postponed", "lost"]


@dataclass(frozen=True)
class Ending:
    """The outcome of an engine's run, with its error, or with the summary of its report and the description of the
    exported student."""

    outcome: Outcome
    error: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    student: Mapping[str, Any] | None = None


def outcome_of(
    final_event: Mapping[str, Any] | None, request: Request | None, exit: Exit, last_lines: str, minutes_allowed: int
) -> Ending:
    """The outcome of a run, from the engine's final event (None if there was none) and the request that ended it."""
    event = final_event or {"event": "nothing"}
    if event["event"] == "done":
        return Ending("succeeded", summary=event.get("summary") or {}, student=event.get("student"))
    if request == "cancel":
        return Ending("cancelled")
    if is_final_error(event):
        return Ending("failed", engine_error(event))
    if is_disk_error(event):
        return Ending("postponed", engine_error(event))
    if request == "time":
        message = f"the job ran longer than the allowed {minutes_allowed} minutes, over all attempts"
        return Ending("failed", ends.error("time_limit", message))
    if request == "stall":
        message = f"the engine sent no event for {settings().stall_seconds:g} seconds and was killed"
        return Ending("lost", ends.error("stalled", message, last_lines))
    if request == "drain":
        return Ending("drained")
    if exit.out_of_memory:
        return Ending("failed", ends.error("job_memory", str(exit)))
    return Ending("lost", crash_error(final_event, str(exit), last_lines))


def crash_error(final_event: Mapping[str, Any] | None, exit: str, last_lines: str) -> dict[str, Any]:
    """The error of an engine that ended unexpectedly."""
    if final_event is None:
        return ends.error("engine_crashed", exit, last_lines)
    if final_event["event"] == "error":
        return engine_error(final_event)
    return ends.error(
        "engine_crashed", f"the engine ended unexpectedly with the event {final_event['event']}", last_lines
    )


def engine_error(event: Mapping[str, Any]) -> dict[str, Any]:
    """The error of an engine's event, in the form of the errors of jobs and uploads."""
    errors = [item for item in event.get("errors") or [] if isinstance(item, dict)]
    problems = [{"pointer": str(item.get("pointer", "")), "message": str(item.get("message", ""))} for item in errors]
    code, fault = str(event.get("code") or "failed"), str(event.get("fault") or "service")
    return ends.error(code, str(event.get("message") or ""), str(event.get("hint") or ""), fault, problems)


def is_disk_error(event: Mapping[str, Any] | None) -> bool:
    """Whether an event says that the disk of this machine is full or fails, which says nothing about the work."""
    return event is not None and event["event"] == "error" and event.get("code") == DISK_ERROR


def is_final_error(event: Mapping[str, Any]) -> bool:
    """Whether an event is an error of the input or the job, not of the service, so that another attempt would fail
    too."""
    return event["event"] == "error" and event.get("fault") in ("user", "job")
