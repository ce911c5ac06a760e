"""Procedure: which stages run, on which networks, from which weights.

`Procedure.next` is a pure function of the finished stages, so that a resumed run repeats the same decisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.method import Method
from worker.distillation.task import EVERY_TASK

Phase = Literal["checking_teacher", "training_teacher", "synthesising", "distilling", "evaluating", "exporting"]
"""The phase of a run, as in its events."""
GIVEN = "given"
"""Value of a stage's `teacher` that stands for the job's own teacher."""
PRETRAINED = "pretrained"
"""Value of a member's `initial` that stands for a library's pretrained weights."""
FILE = "file:"
"""Prefix of a stage's `teacher` for an uploaded file with weights of the job's teacher network."""


@dataclass(frozen=True)
class Member:
    """One network in training, as plain data.

    `network` and `options` name it; `objectives` are written as in a job's spec; `initial` is None (initialised from
    the seed), `"given"` (the job's initial weights), `"pretrained"` (a library's, from the job's file) or `"stage:NAME"` / `"stage:NAME/MEMBER"` (copied from a finished
    stage). `trains_through` names a tap: only parameters of layers executed up to and including it train; all if None.
    `trains_after` names a tap: parameters of its layer and of those before it do not train. `transforms` are written as
    in a job's spec.
    """

    network: str
    options: dict[str, Any]
    objectives: tuple[dict[str, Any], ...]
    initial: str | None = None
    trains_through: str | None = None
    trains_after: str | None = None
    transforms: tuple[dict[str, Any], ...] = ()
    pointer: str = "/objectives"
    """JSON pointer to the objectives in the job's spec, for messages."""
    network_pointer: str = "/student"
    """JSON pointer to `network` and `options` in the job's spec, for messages."""


@dataclass(frozen=True)
class Stage:
    """One training run, as plain data.

    `teacher` is None, `"given"`, `"file:ID"` (the given teacher's network with the weights of an uploaded file),
    `"stage:NAME"`, `"stage:NAME/MEMBER"`, or either of these two with `@EPOCH` for a snapshot. `epochs` or `steps`
    limits it; `training` overrides keys of the job's training. `update` says whether a cohort's members all read the
    same predictions or each reads its predecessors' newest. `snapshots` are epochs whose weights are kept for later
    stages. Random streams are derived from `seed_name` (the stage's name if None), so that two procedures can draw the
    same numbers for stages that are to be compared.
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
    """Whether its members are evaluated on the held-out images at its end: metrics `metric_of(member, metric)`."""
    compared: tuple[str, ...] = ()
    """Finished networks, as in `teacher`, to compare its members with: metrics `kl_of(member, place)`, the mean
    KL(network || member) on the held-out images, in nats."""
    timed: bool = False
    """Whether its members are timed: metrics `milliseconds_of(member)`, the median time for one image, on the job's
    device with one thread."""
    estimated: bool = False
    """Whether its members' agreement with the job's teacher is estimated without data at its end: metrics
    `estimate_of(member)`, which are missing where no estimate can be made."""
    source: dict[str, Any] | None = None
    """The source in place of the job's, as in a job's spec; the parameters that it leaves out have their defaults."""
    may_fail: bool = False
    """Whether a collapse of its images that no restart helps ends the stage, without metrics, and not the job."""

    @property
    def seeded_by(self) -> str:
        """Name from which, together with the job's seed, the stage's random streams are derived."""
        return self.seed_name or self.name


def metric_of(member: str, metric: str) -> str:
    """The name of a metric of a stage that is `evaluated`."""
    return f"validation/{member}/{metric}"


def kl_of(member: str, place: str) -> str:
    """The name of a metric of a stage for a place in its `compared`."""
    return f"validation/{member}/kl/{place}"


def milliseconds_of(member: str) -> str:
    """The name of a metric of a stage that is `timed`."""
    return f"latency_milliseconds/{member}"


def estimate_of(member: str) -> str:
    """The name of a metric of a stage that is `estimated`: the estimated share of images that are classified alike."""
    return f"estimate/{member}"


@dataclass(frozen=True)
class StageResult:
    """Results of a finished stage: its name, its steps, its last metrics and the metrics measured at its end. Its
    weights are found by its name. A stage that is only planned has no metrics."""

    name: str
    steps: int
    metrics: dict[str, float]
    snapshots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The parts of the job that a procedure may read."""

    student: Member
    teacher: str | None
    epochs: int | None
    steps: int | None
    seed: int
    task: str
    learning_rate: float = 1.0
    """Peak learning rate of the job's training."""
    held_out: bool = False
    """Whether some of the training images are held out, so that stages can be evaluated on them."""
    synthesises: bool = False
    """Whether the job's source makes its images, so that students can be estimated without data."""
    sliced: bool = False
    """Whether the job's initial weights are slices of its teacher's."""


@dataclass(frozen=True)
class ProcedureNeeds:
    """What a procedure requires of a job; checked at submission from the catalogue."""

    held_out_images: bool = False
    """Decides by metrics on images that are held out of the training: `training/validation_fraction`."""
    synthesised_images: bool = False
    """Decides by an estimate without data, for students of a source that makes its images; counts steps, not epochs."""
    tasks: tuple[str, ...] = EVERY_TASK
    """The tasks whose networks it can compare."""


class Procedure(Method):
    """The stages of a job."""

    needs: ClassVar[ProcedureNeeds] = ProcedureNeeds()
    fills: ClassVar[Mapping[str, tuple[dict[str, Any], ...]]] = {}
    """Objectives that replace parameters that are null; presets set them by `when`."""
    own_teacher: ClassVar[bool] = False
    """Can train its own teacher, so that objectives may need a teacher even if the job has none."""
    cohort: ClassVar[bool] = False
    """Trains several networks at once, so that objectives may read the outputs of the student's peers."""
    objective_defaults: ClassVar[tuple[dict[str, Any], ...]] = ()
    """The objectives of a job whose spec names none, if they differ from the general default."""

    def check(self, plan: Plan) -> None:
        """Check that the job meets the procedure's requirements with its parameter values.

        Raises:
            SpecError: it does not.
        """
        needs: ProcedureNeeds = self.effective("needs")
        place = "/".join(["/procedure", *filter(None, [self.decided_by("needs")])])
        problems = []
        if needs.held_out_images and not plan.held_out:
            words = "must be greater than 0: the procedure decides by held-out images"
            problems.append(Problem("/training/validation_fraction", words))
        if needs.synthesised_images and not plan.synthesises:
            problems.append(Problem("/source", "must make its images from the teacher: the procedure needs no data"))
        if needs.synthesised_images and plan.steps is None:
            problems.append(Problem("/training/steps", "is required in place of epochs: the images are synthesised"))
        if plan.task not in needs.tasks:
            problems.append(Problem(place, f"is for {' or '.join(needs.tasks)}, not for the task {plan.task}"))
        if problems:
            raise SpecError(problems)

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        """The stage to run after `history`, or None at the end. Pure: the same arguments give the same stage.

        Raises:
            SpecError: the parameters or the plan are invalid (pointers into the job's spec, such as `/procedure/first`).
        """
        raise NotImplementedError

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        """`"STAGE/MEMBER"` of the network that becomes the job's student."""
        return f"{history[-1].name}/student"

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """Other networks to export, by the name of their artifact: `"STAGE/MEMBER"`, possibly with `@EPOCH`."""
        return {}

    def ensembles(self, history: Sequence[StageResult], plan: Plan) -> dict[str, tuple[str, ...]]:
        """Ensembles to export, by the name of their artifact: `"STAGE/MEMBER"` of each finished network. An
        ensemble's output is the mean of its networks'."""
        return {}

    def considers(self, plan: Plan) -> Sequence[Member]:
        """Students of stages that depend on results. They are checked before the job starts, like planned ones."""
        return ()

    def decisions(self, history: Sequence[StageResult], plan: Plan) -> dict[str, Any]:
        """The procedure's decisions for the report, as plain data."""
        return {}
