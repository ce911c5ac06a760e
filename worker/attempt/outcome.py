"""How an engine's run ended, by its last word and by what was asked of it."""

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


def judge(
    last_word: Mapping[str, Any] | None, request: Request | None, exit: str, last_lines: str, minutes_allowed: int
) -> Ending:
    """How a run ended, by the engine's last word (None if it had none) and by what was asked of it."""
    said = last_word or {"event": "nothing"}
    if said["event"] == "done":
        return Ending("succeeded", summary=said.get("summary") or {}, student=said.get("student"))
    if request == "cancel":
        return Ending("cancelled")
    if said["event"] == "error" and said.get("fault") in ("user", "job"):
        return Ending("failed", said_error(said))
    if request == "time":
        message = f"its attempts together took longer than the {minutes_allowed} minutes that this service allows a job"
        return Ending("failed", ends.error("time_limit", message))
    if request == "stall":
        message = f"the engine had said nothing for {settings().stall_seconds:g} seconds and was stopped"
        return Ending("lost", ends.error("stalled", message, last_lines))
    if request == "drain":
        return Ending("drained")
    return Ending("lost", judge_crash(last_word, exit, last_lines))


def judge_crash(last_word: Mapping[str, Any] | None, exit: str, last_lines: str) -> dict[str, Any]:
    """The error of an engine that ended as it should not have."""
    if last_word is None:
        return ends.error("engine_crashed", exit, last_lines)
    if last_word["event"] == "error":
        return said_error(last_word)
    return ends.error("engine_crashed", f"the engine ended unasked with {last_word['event']}", last_lines)


def said_error(said: Mapping[str, Any]) -> dict[str, Any]:
    """The error that an engine said, in the form in which jobs and uploads show it."""
    errors = [item for item in said.get("errors") or [] if isinstance(item, dict)]
    problems = [{"pointer": str(item.get("pointer", "")), "message": str(item.get("message", ""))} for item in errors]
    code, fault = str(said.get("code") or "failed"), str(said.get("fault") or "service")
    return ends.error(code, str(said.get("message") or ""), str(said.get("hint") or ""), fault, problems)
