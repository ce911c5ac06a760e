"""A finished run: everything that its report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from worker.distillation.job import Job
from worker.distillation.procedure import Member, StageResult


@dataclass(frozen=True, kw_only=True)
class KeptNetwork:
    """Another network than the student that became an artifact."""

    name: str
    member: Member
    evaluation: Mapping[str, float] | None
    """Its metrics on the evaluation images; None without any."""
    files: Sequence[Mapping[str, Any]]
    """`name`, `path` and `content_type` of each."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run has made and measured."""

    job: Job
    student: nn.Module
    """As it ships."""
    member: Member
    """What the student is, as plain data."""
    teacher: nn.Module | None
    files: Sequence[Mapping[str, Any]]
    """The student's: `name`, `path` and `content_type` of each."""
    checkpoint: Mapping[str, str]
    """Which weights ship (`checkpoint`) and why (`why`)."""
    measured: Mapping[str, Any]
    """`evaluation` and `without_data` (see measurement.py) of the student, each perhaps None; and in `not_shipped` the same of
    weights that could have shipped, if there are any."""
    history: Sequence[StageResult]
    environment: Mapping[str, Any]
    seconds: float
    phase_seconds: Mapping[str, float]
    previews: Sequence[str] = ()
    """Names of the images under `previews/` that show the end of the run."""
    kept: Sequence[KeptNetwork] = ()
    decisions: Mapping[str, Any] = field(default_factory=dict)
    """How the procedure decided."""
    stopped_early: Mapping[str, Any] | None = None
    """By what and where the training was stopped before its end."""
    warnings: Sequence[str] = ()
    teacher_check: Mapping[str, Any] | None = None
    """What the check of the teacher found before the training; None without one."""
