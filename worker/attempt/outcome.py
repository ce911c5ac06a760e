"""How an engine's run ended, by its final event and by what was asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from models.settings import settings
from worker.attempt.engine_watch import Request
from worker.ledger import ends

Outcome = Literal["succeeded", "failed", "cancelled", "drained", "lost"]


@dataclass(frozen=True)
class Ending:
    """How an engine's run ended, and what it left to say: an error, or the summary of its report and what shipped."""

    outcome: Outcome
    error: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    student: Mapping[str, Any] | None = None


def outcome_of(
    final_event: Mapping[str, Any] | None, request: Request | None, exit: str, last_lines: str, minutes_allowed: int
) -> Ending:
    """How a run ended, by the engine's final event (None if there was none) and by what was asked of it."""
    said = final_event or {"event": "nothing"}
    if said["event"] == "done":
        return Ending("succeeded", summary=said.get("summary") or {}, student=said.get("student"))
    if request == "cancel":
        return Ending("cancelled")
    if is_final_error(said):
        return Ending("failed", engine_error(said))
    if request == "time":
        message = f"its attempts together took longer than the {minutes_allowed} minutes that this service allows a job"
        return Ending("failed", ends.error("time_limit", message))
    if request == "stall":
        message = f"the engine had said nothing for {settings().stall_seconds:g} seconds and was stopped"
        return Ending("lost", ends.error("stalled", message, last_lines))
    if request == "drain":
        return Ending("drained")
    return Ending("lost", crash_error(final_event, exit, last_lines))


def crash_error(final_event: Mapping[str, Any] | None, exit: str, last_lines: str) -> dict[str, Any]:
    """The error of an engine that ended as it should not have."""
    if final_event is None:
        return ends.error("engine_crashed", exit, last_lines)
    if final_event["event"] == "error":
        return engine_error(final_event)
    return ends.error("engine_crashed", f"the engine ended unasked with {final_event['event']}", last_lines)


def engine_error(said: Mapping[str, Any]) -> dict[str, Any]:
    """The error that an engine said, in the form in which jobs and uploads show it."""
    errors = [item for item in said.get("errors") or [] if isinstance(item, dict)]
    problems = [{"pointer": str(item.get("pointer", "")), "message": str(item.get("message", ""))} for item in errors]
    code, fault = str(said.get("code") or "failed"), str(said.get("fault") or "service")
    return ends.error(code, str(said.get("message") or ""), str(said.get("hint") or ""), fault, problems)


def is_final_error(event: Mapping[str, Any]) -> bool:
    """Whether an event is an error of the input or the job itself, and not of this service: trying again is no use."""
    return event["event"] == "error" and event.get("fault") in ("user", "job")
