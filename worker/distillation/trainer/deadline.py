"""The time limit of a job: when training stops, and which network ships then.

`training.time_limit_minutes` limits the total time of all attempts. After it, training stops, and the student is
evaluated and exported in its current state.
"""

import time
from typing import Any

from worker.distillation.errors import EngineError
from worker.distillation.procedure import Member, Stage
from worker.distillation.trainer.job_plan import planned_stages
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.stage_run import StageRun

STOPPED_EARLY = (
    "the time limit was reached at step {step} of {steps} of stage {stage!r}: training stops, and the student is "
    "evaluated in its current state"
)
HINT = "Increase training/time_limit_minutes, or train for fewer epochs or steps."


class TimeLimit(EngineError):
    """The job's own time limit was reached before there was a student."""

    fault, code = "user", "time_limit"


class Deadline:
    """The time limit in `minutes`, of which earlier attempts have used `used_seconds`; None means no limit."""

    def __init__(self, minutes: float | None, used_seconds: float):
        self.minutes = minutes
        self._until = None if minutes is None else time.monotonic() + minutes * 60 - used_seconds

    def passed(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until


def stopped_early(run: StageRun, minutes: float | None) -> dict[str, Any]:
    """Where the time limit stopped the running stage, for the report."""
    return {
        "reason": "time_limit",
        "minutes": minutes,
        "stage": run.stage.name,
        "step": run.number,
        "steps": run.total,
    }


def ships_from(run: StageRun, lineage: Lineage, minutes: float | None) -> bool:
    """Whether the student ships from the running stage if training stops now; otherwise it ships from a finished stage.

    A network that started from new weights in the running stage ships only if there is no finished student.

    Raises:
        TimeLimit: no network has yet trained with the options and objectives of the final student.
    """
    continues = any(member.initial and member.initial.startswith("stage:") for member in run.stage.members.values())
    finished = _has_student(lineage, None)
    if run.number and (continues or not finished) and _has_student(lineage, run.stage):
        return True
    if finished:
        return False
    message = (
        f"the time limit of {minutes:g} minutes was reached in stage {run.stage.name!r}, before the student was trained"
    )
    raise TimeLimit(message, HINT)


def _has_student(lineage: Lineage, running: Stage | None) -> bool:
    """Whether the network that would ship now is built and trained (options, objectives) as the one planned for the end."""
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
