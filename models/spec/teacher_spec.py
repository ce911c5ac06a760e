"""The `teacher` of a job's spec."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

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
    "weight_decay", "nesterov", "schedule", "milestones", "milestone_factor", "warm_up_steps",
    "gradient_clip",
)  # fmt: skip
"""The training fields that a stage may set itself; the others are those of the job."""


def _is_id(value: str) -> str:
    if not value.startswith((UPLOAD, JOB)):
        words = f"must be the id of a teacher, beginning with {UPLOAD}, or of a job, beginning with {JOB}"
        raise complaint(Problem("", words))
    return value


TaughtBy = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_is_id),
    Field(
        description="Id of a teacher, or of a job. The student of the job becomes the teacher when that job succeeds.",
        examples=["tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
    ),
]


def _each_once(members: list[str]) -> list[str]:
    repeated = [index for index, one in enumerate(members) if one in members[:index]]
    if repeated:
        raise complaint(*(Problem(f"/{index}", "is listed twice; use `weights` instead") for index in repeated))
    return members


Members = Annotated[list[TaughtBy], Field(min_length=2, max_length=MOST_TEACHERS), AfterValidator(_each_once)]


if TYPE_CHECKING:
    # the fields are known only at run time: the engine declares them
    DeclaredEnsemble: TypeAlias = Body
else:
    DeclaredEnsemble = part_model("ensemble")


class EnsembleSpec(DeclaredEnsemble):
    """An ensemble of teachers (arXiv:1503.02531). All members have the same number of classes and read images of the
    same shape; each image is normalised with each member's own mean and std. The name of a tap is `0.PATH` for the
    first member, `1.PATH` for the second, and so on. Objectives that compare features must name their tap; sources that
    synthesise images use the taps of the first member."""

    members: Members = Field(
        description="Ids of the teachers, or of jobs whose students become teachers.", examples=[["tch_…", "job_…"]]
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = dict(self)
        if given["weights"] is not None and len(given["weights"]) != len(self.members):
            words = f"must have one number for each of {len(self.members)} members, not {len(given['weights'])}"
            raise complaint(Problem("/weights", words))
        if given["combine"] == "logits" and given["temperature"] is not None:
            raise complaint(Problem("/temperature", "applies only if combine is `probabilities`; omit it"))
        return self


class TeacherTraining(TrainingSpec):
    """The training of a teacher. Fields that are left out have the values of the job's training."""

    @model_validator(mode="after")
    def _of_a_stage(self) -> Self:
        wrong = sorted(self.model_fields_set - set(OF_THE_STAGE))
        if wrong:
            raise complaint(*(Problem(f"/{name}", "applies to the whole job; set it in /training") for name in wrong))
        return self


class TrainedTeacherSpec(NetworkSpec):
    """A teacher that the job trains first, on the dataset's labels, and publishes as `teacher.safetensors`."""

    network: NetworkName = Field(description="A network of the catalogue.", examples=["lenet5"])
    initial_weights: Literal["random", "pretrained"] = Field(
        "random",
        description="Weights before training: random, or those of torchvision or timm, if the operator of the service has put the "
        "file into its folder.",
        examples=["random"],
    )
    training: TeacherTraining = Field(
        default_factory=TeacherTraining,
        description="Training of the teacher. If left out: as the job's training.",
        examples=[{"epochs": 60}],
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
    """The ids that a spec's `teacher` names, by their places in the spec. The spec may be resolved or not."""
    if isinstance(teacher, str):
        return {"/teacher": teacher}
    place, members = "/teacher", teacher or ()
    if isinstance(teacher, Mapping):
        place, members = "/teacher/members", teacher.get("members") or ()
    return {f"{place}/{index}": identifier for index, identifier in enumerate(members)}


def alone(teacher: Any) -> str | None:
    """The id of an upload that is the only teacher; None for any other `teacher` of a spec."""
    return teacher if isinstance(teacher, str) and teacher.startswith(UPLOAD) else None


def is_trained_first(teacher: Any) -> bool:
    """Whether the job trains its teacher first."""
    return isinstance(teacher, Mapping) and "network" in teacher
