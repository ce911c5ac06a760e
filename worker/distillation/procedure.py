"""Procedure: which stages run, on which networks, from which weights.

`Procedure.next` is a pure function of the finished stages, so that resuming a run is replaying it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

GIVEN = "given"
"""The job's own teacher, as a stage's `teacher`."""


@dataclass(frozen=True)
class Member:
    """One network in training, as plain data.

    `network` and `options` name it; `objectives` are written as in a job's spec; `initial` is None (fresh from the
    seed), `"given"` (the job's initial weights) or `"stage:NAME"` / `"stage:NAME/MEMBER"` (copied from a finished
    stage); `trains_through` names a tap: only parameters of layers executed up to and including it train, None for all;
    `transforms` are written as in a job's spec.
    """

    network: str
    options: dict[str, Any]
    objectives: tuple[dict[str, Any], ...]
    initial: str | None = None
    trains_through: str | None = None
    transforms: tuple[dict[str, Any], ...] = ()
    pointer: str = "/objectives"
    """Where in the job's spec the objectives stand, for messages."""


@dataclass(frozen=True)
class Stage:
    """One training run, as plain data.

    `teacher` is None, `"given"`, `"stage:NAME"`, `"stage:NAME/MEMBER"`, or either with `@EPOCH` for a snapshot.
    `epochs` or `steps` bounds it; `training` overrides keys of the job's training. `update` says whether a cohort's
    members all read the same predictions or each sees its predecessors' newest. `snapshots` are epochs whose weights
    are kept, for later stages.
    """

    name: str
    members: dict[str, Member]
    teacher: str | None = GIVEN
    epochs: int | None = None
    steps: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    update: Literal["simultaneous", "sequential"] = "simultaneous"
    snapshots: tuple[int, ...] = ()
    phase: str = "distilling"


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left: its name, its steps, and its last metrics. Weights are found by name."""

    name: str
    steps: int
    metrics: dict[str, float]
    snapshots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a procedure may read of the job."""

    student: Member
    teacher: str | None
    epochs: int | None
    steps: int | None
    seed: int


class Procedure:
    """The schedule of a job."""

    paper: ClassVar[str] = ""

    @dataclass(frozen=True)
    class Parameters:
        """No parameters."""

    def __init__(self, parameters: Any = None):
        self.parameters = self.Parameters() if parameters is None else parameters

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        """The stage to run after `history`, or None at the end. Pure: the same arguments give the same stage.

        Raises:
            SpecError: the parameters or the plan cannot work (pointers into the job's spec, such as `/procedure/first`).
        """
        raise NotImplementedError

    def ships(self, history: Sequence[StageResult], plan: Plan) -> str:
        """`"STAGE/MEMBER"` of the network that is the job's student."""
        return f"{history[-1].name}/student"
