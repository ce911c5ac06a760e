"""When a job's training is to stop, and what can ship then.

`training.time_limit_minutes` bounds the time of all attempts together. When it has passed, the training stops where it
is, and the student is evaluated and exported as it is.
"""

import time
from typing import Any

from worker.distillation.errors import EngineError
from worker.distillation.procedure import Member, Stage
from worker.distillation.trainer.job_plan import planned_stages
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.stage_run import StageRun

STOPPED_EARLY = (
    "the time limit has passed at step {step} of {steps} of stage {stage!r}: the training stops, and the student is "
    "evaluated as it is"
)
HINT = "Raise training/time_limit_minutes, or train for fewer epochs or steps."


class TimeLimit(EngineError):
    """The job's own time limit has passed before there was a student."""

    fault, code = "user", "time_limit"


class Deadline:
    """Counts from its making, on top of the seconds that earlier attempts have used."""

    def __init__(self, minutes: float | None, used_seconds: float):
        self.minutes = minutes
        self._until = None if minutes is None else time.monotonic() + minutes * 60 - used_seconds

    def passed(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until


def stopped_early(run: StageRun, minutes: float | None) -> dict[str, Any]:
    """Where the time limit stops the running stage, as the report says it."""
    return {
        "reason": "time_limit",
        "minutes": minutes,
        "stage": run.stage.name,
        "step": run.number,
        "steps": run.total,
    }


def ends_in(run: StageRun, lineage: Lineage, minutes: float | None) -> bool:
    """Whether the student ships from the running stage, if the training stops now; else from a finished one.

    A network that was begun afresh ships only if none is finished.

    Raises:
        TimeLimit: no network of the job's has trained yet as the student that would ship at the end does.
    """
    goes_on = any(member.initial and member.initial.startswith("stage:") for member in run.stage.members.values())
    finished = _has_student(lineage, None)
    if run.number and (goes_on or not finished) and _has_student(lineage, run.stage):
        return True
    if finished:
        return False
    words = (
        f"the time limit of {minutes:g} minutes has passed before the student was trained (in stage {run.stage.name!r})"
    )
    raise TimeLimit(words, HINT)


def _has_student(lineage: Lineage, running: Stage | None) -> bool:
    """Whether what would ship now is of the kind that would ship at the end, and trained on the same objectives."""
    stages = planned_stages(lineage.procedure, lineage.plan, lineage.history)
    known = {stage.name: stage for stage in stages[: len(lineage.history) + (running is not None)]}
    if not known:
        return False
    member = _member(known, lineage.student_place(running))
    last = _member({stage.name: stage for stage in stages}, lineage.planned_student_place(stages))
    return member is not None and last is not None and _kind(member) == _kind(last)


def _member(stages: dict[str, Stage], place: str) -> Member | None:
    stage, _, name = place.partition("@")[0].partition("/")
    return stages[stage].members.get(name or "student") if stage in stages else None


def _kind(member: Member) -> tuple[Any, ...]:
    return member.network, member.options, member.objectives, member.trains_through, member.trains_after
