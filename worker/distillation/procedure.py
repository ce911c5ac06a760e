"""Procedure: which stages run, on which networks, from which weights.

`Procedure.next` is a pure function of the finished stages, so that resuming a run is replaying it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.method import Method
from worker.distillation.task import EVERY_TASK

Phase = Literal["training_teacher", "synthesising", "distilling", "evaluating", "exporting"]
"""What a run is doing, as its events say."""
GIVEN = "given"
"""The job's own teacher, as a stage's `teacher`."""
FILE = "file:"
"""What a stage's `teacher` begins with that is an uploaded file of the given teacher's network's weights."""


@dataclass(frozen=True)
class Member:
    """One network in training, as plain data.

    `network` and `options` name it; `objectives` are written as in a job's spec; `initial` is None (fresh from the
    seed), `"given"` (the job's initial weights) or `"stage:NAME"` / `"stage:NAME/MEMBER"` (copied from a finished
    stage); `trains_through` names a tap: only parameters of layers executed up to and including it train, None for all;
    `trains_after` one of whose layers, and those before it, none train;
    `transforms` are written as in a job's spec.
    """

    network: str
    options: dict[str, Any]
    objectives: tuple[dict[str, Any], ...]
    initial: str | None = None
    trains_through: str | None = None
    trains_after: str | None = None
    transforms: tuple[dict[str, Any], ...] = ()
    pointer: str = "/objectives"
    """Where in the job's spec the objectives stand, for messages."""
    network_pointer: str = "/student"
    """Where in the job's spec `network` and `options` stand, for messages."""


@dataclass(frozen=True)
class Stage:
    """One training run, as plain data.

    `teacher` is None, `"given"`, `"file:ID"` (the given teacher's network with the weights of an uploaded file),
    `"stage:NAME"`, `"stage:NAME/MEMBER"`, or either of these two with `@EPOCH` for a snapshot.
    `epochs` or `steps` bounds it; `training` overrides keys of the job's training. `update` says whether a cohort's
    members all read the same predictions or each sees its predecessors' newest. `snapshots` are epochs whose weights
    are kept, for later stages. Random streams are derived from `seed_name` (the stage's name if None), so that two
    procedures can draw the same numbers for stages that are to be compared.
    """

    name: str
    members: dict[str, Member]
    teacher: str | None = GIVEN
    epochs: int | None = None
    steps: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    update: Literal["simultaneous", "sequential"] = "simultaneous"
    snapshots: tuple[int, ...] = ()
    phase: Phase = "distilling"
    seed_name: str | None = None
    evaluated: bool = False
    """Its members are measured on the held-out images at its end: metrics `figure_of(member, figure)`."""
    compared: tuple[str, ...] = ()
    """Finished networks, as in `teacher`: metrics `kl_of(member, place)`, on the held-out images, the mean KL(network || member)
    in nats."""
    timed: bool = False
    """Metrics `milliseconds_of(member)`: the median time for one image, on the job's device with one thread."""

    @property
    def seeded_by(self) -> str:
        """What the stage's random streams are derived from, beside the job's seed."""
        return self.seed_name or self.name


def figure_of(member: str, figure: str) -> str:
    """The name of a metric that a `evaluated` stage leaves."""
    return f"validation/{member}/{figure}"


def kl_of(member: str, place: str) -> str:
    """The name of a metric that a stage leaves for a place in its `compared`."""
    return f"validation/{member}/kl/{place}"


def milliseconds_of(member: str) -> str:
    """The name of a metric that a `timed` stage leaves."""
    return f"latency_milliseconds/{member}"


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left: its name, its steps, its last metrics and what was measured at its end. Weights are found by
    name. Of a stage that is only planned there are no metrics."""

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
    task: str
    held_out: bool = False
    """Whether a part of the training images is held out, for stages to be evaluated on."""


@dataclass(frozen=True)
class ProcedureNeeds:
    """What a job must offer for a procedure to work; checked at submission from the catalogue."""

    held_out_images: bool = False
    """Chooses by figures on images that are held out of the training: `training/validation_fraction`."""
    tasks: tuple[str, ...] = EVERY_TASK
    """The tasks whose networks it can compare."""


class Procedure(Method):
    """The schedule of a job."""

    needs: ClassVar[ProcedureNeeds] = ProcedureNeeds()
    fills: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {}
    """The objectives that parameters which are null stand for; presets fill them in by `when`."""
    own_teacher: ClassVar[bool] = False
    """Can train a teacher of its own, so that objectives may need one although the job has none."""
    cohort: ClassVar[bool] = False
    """Trains several networks at once, so that objectives may read what the student's peers say."""
    objective_defaults: ClassVar[tuple[dict[str, Any], ...]] = ()
    """The job's objectives where it names none, if not the usual ones."""

    def check(self, plan: Plan) -> None:
        """See that the job offers what the procedure needs with the parameters that it has.

        Raises:
            SpecError: it does not.
        """
        needs: ProcedureNeeds = self.effective("needs")
        place = "/".join(["/procedure", *filter(None, [self.decided_by("needs")])])
        problems = []
        if needs.held_out_images and not plan.held_out:
            words = "must be greater than 0: the procedure chooses by images that are held out"
            problems.append(Problem("/training/validation_fraction", words))
        if plan.task not in needs.tasks:
            problems.append(Problem(place, f"is for {' or '.join(needs.tasks)}, not for the task {plan.task}"))
        if problems:
            raise SpecError(problems)

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        """The stage to run after `history`, or None at the end. Pure: the same arguments give the same stage.

        Raises:
            SpecError: the parameters or the plan cannot work (pointers into the job's spec, such as `/procedure/first`).
        """
        raise NotImplementedError

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        """`"STAGE/MEMBER"` of the network that is the job's student."""
        return f"{history[-1].name}/student"

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """Other networks worth having, by the name of their artifact: `"STAGE/MEMBER"`, perhaps with `@EPOCH`."""
        return {}

    def ensembles(self, history: Sequence[StageResult], plan: Plan) -> dict[str, tuple[str, ...]]:
        """Finished networks worth having as one that gives their mean, by the name of its artifact: `"STAGE/MEMBER"` of each."""
        return {}

    def considers(self, plan: Plan) -> Sequence[Member]:
        """Students of stages that depend on results: they are checked before the job begins, as planned ones are."""
        return ()

    def decisions(self, history: Sequence[StageResult], plan: Plan) -> dict[str, Any]:
        """What the report says of how the procedure decided, as plain data."""
        return {}
