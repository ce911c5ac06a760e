"""Who teaches: the `teacher` of a job's spec."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from models.spec.body import Body
from models.spec.network_spec import NetworkName, NetworkSpec
from models.spec.problems import Problem, complaint, tag
from models.spec.schema_types import part_model
from models.spec.training_spec import TrainingSpec

MOST_TEACHERS = 16
JOB, UPLOAD = "job_", "tch_"
OF_THE_STAGE = (
    "epochs", "steps", "batch_size", "optimizer", "learning_rate", "final_learning_rate_fraction", "momentum",
    "weight_decay", "nesterov", "schedule", "milestones", "warm_up_steps",
)  # fmt: skip
"""What of a training a stage may have of its own; the rest is the job's."""


def _is_id(value: str) -> str:
    if not value.startswith((UPLOAD, JOB)):
        words = f"must be the id of a teacher, which begins with {UPLOAD}, or of a job, which begins with {JOB}"
        raise complaint(Problem("", words))
    return value


TaughtBy = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_is_id),
    Field(
        description="A teacher, or a job: its student teaches, once it is there.",
        examples=["tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
    ),
]


def _each_once(members: list[str]) -> list[str]:
    twice = [index for index, one in enumerate(members) if one in members[:index]]
    if twice:
        raise complaint(*(Problem(f"/{index}", "is named before: give it a weight instead") for index in twice))
    return members


Members = Annotated[list[TaughtBy], Field(min_length=2, max_length=MOST_TEACHERS), AfterValidator(_each_once)]


if TYPE_CHECKING:
    # its fields are known only at run time: the engine declares them
    DeclaredEnsemble: TypeAlias = Body
else:
    DeclaredEnsemble = part_model("ensemble")


class EnsembleSpec(DeclaredEnsemble):
    """Several teachers that answer as one (arXiv:1503.02531). They tell the same classes apart and read images of one
    shape; each has them normalised by its own mean and std. A tap of the first is called `0.PATH`, of the second `1.PATH`;
    objectives that compare features have to name theirs, and sources that synthesise read those of the first."""

    members: Members = Field(description="The teachers.", examples=[["tch_…", "job_…"]])

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = dict(self)
        if given["weights"] is not None and len(given["weights"]) != len(self.members):
            words = f"must have one number for each of the {len(self.members)} members, not {len(given['weights'])}"
            raise complaint(Problem("/weights", words))
        if given["combine"] == "logits" and given["temperature"] is not None:
            raise complaint(Problem("/temperature", "is for `probabilities`: a mean of logits is the same at each"))
        return self


class TeacherTraining(TrainingSpec):
    """How a teacher trains; what is left out is as in the job's training."""

    @model_validator(mode="after")
    def _of_a_stage(self) -> Self:
        wrong = sorted(self.model_fields_set - set(OF_THE_STAGE))
        if wrong:
            raise complaint(*(Problem(f"/{name}", "is the whole job's: say it in /training") for name in wrong))
        return self


class TrainedTeacherSpec(NetworkSpec):
    """A teacher that does not exist yet: it is trained first, on the dataset's labels, and kept as `teacher.safetensors`."""

    network: NetworkName = Field(description="A network of the catalogue.", examples=["lenet5"])
    training: TeacherTraining = Field(
        default_factory=TeacherTraining, description="How it trains.", examples=[{"epochs": 60}]
    )


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return tag("several teachers")
    if isinstance(value, TrainedTeacherSpec) or (isinstance(value, Mapping) and "network" in value):
        return tag("a teacher that is trained first")
    return tag("an ensemble") if isinstance(value, Mapping | EnsembleSpec) else tag("a teacher")


TeacherChoice = Annotated[
    Annotated[TaughtBy, Tag(tag("a teacher"))]
    | Annotated[Members, Tag(tag("several teachers"))]
    | Annotated[EnsembleSpec, Tag(tag("an ensemble"))]
    | Annotated[TrainedTeacherSpec, Tag(tag("a teacher that is trained first"))],
    Discriminator(_kind_of),
]


def named(teacher: Any) -> dict[str, str]:
    """The ids that a spec's `teacher` names, by their places in the spec; it may be resolved or not."""
    if isinstance(teacher, str):
        return {"/teacher": teacher}
    place, members = "/teacher", teacher or ()
    if isinstance(teacher, Mapping):
        place, members = "/teacher/members", teacher.get("members") or ()
    return {f"{place}/{index}": identifier for index, identifier in enumerate(members)}


def alone(teacher: Any) -> str | None:
    """The id of an upload that teaches alone; None for any other `teacher` of a spec."""
    return teacher if isinstance(teacher, str) and teacher.startswith(UPLOAD) else None


def is_trained_first(teacher: Any) -> bool:
    """Whether a spec's `teacher` does not exist yet."""
    return isinstance(teacher, Mapping) and "network" in teacher
