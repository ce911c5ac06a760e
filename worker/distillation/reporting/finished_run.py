"""A finished run: all input of its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from worker.distillation.job import Job
from worker.distillation.procedure import Member, StageResult


@dataclass(frozen=True, kw_only=True)
class KeptNetwork:
    """A network other than the student that became an artifact."""

    name: str
    member: Member
    evaluation: Mapping[str, float] | None
    """Its metrics on the evaluation images; None without evaluation images."""
    files: Sequence[Mapping[str, Any]]
    """`name`, `path` and `content_type` of each."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """The results of a run."""

    job: Job
    student: nn.Module
    """The network that ships."""
    member: Member
    """The student as plain data."""
    teacher: nn.Module | None
    files: Sequence[Mapping[str, Any]]
    """The student's files: `name`, `path` and `content_type` of each."""
    checkpoint: Mapping[str, str]
    """The weights that ship (`checkpoint`) and the reason (`why`)."""
    measured: Mapping[str, Any]
    """`evaluation` and `without_data` of the student (see measurement.py; both may be None), and in `other_weights` the same for
    the alternative weights, if there are any."""
    history: Sequence[StageResult]
    environment: Mapping[str, Any]
    seconds: float
    phase_seconds: Mapping[str, float]
    previews: Sequence[str] = ()
    """Names of the images under `previews/` that show the end of the run."""
    kept: Sequence[KeptNetwork] = ()
    entries: Sequence[Mapping[str, Any]] = ()
    """The transforms that were carried out on the student: `spec` and `recipe` of each."""
    transformed: Mapping[str, Any] | None = None
    """What was measured of a transformed student (see transformed.py)."""
    decisions: Mapping[str, Any] = field(default_factory=dict)
    """The procedure's decisions."""
    stopped_early: Mapping[str, Any] | None = None
    """Why and where training stopped before its end."""
    warnings: Sequence[str] = ()
    teacher_check: Mapping[str, Any] | None = None
    """What the check of the teacher found before the training; None without one."""
