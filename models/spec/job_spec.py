"""What users ask for: the bodies that make teachers, datasets, files and jobs.

Every part says what it is; together they are the API's schema. `resolve` writes out a job's defaults, `check` finds
what cannot work before any network is built, `problems_of` turns pydantic's errors into places and sentences.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from models.spec import source_choice
from models.spec.body import Body, DatasetId, Labels, Name
from models.spec.catalogue import MOST_OBJECTIVES, choices, known
from models.spec.checks import check
from models.spec.defaults import resolved
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.initial_weights import InitialWeights
from models.spec.method_spec import method
from models.spec.network_spec import Classes, InputContract, NetworkSpec
from models.spec.problems import Problem, complaint, problems_of
from models.spec.task_checks import TASK
from models.spec.teacher_spec import TeacherChoice
from models.spec.training_spec import TrainingSpec
from models.spec.upload_specs import DatasetOptions, DatasetSpec, FileSpec, TeacherSpec
from models.spec.webhook_target import Webhook

__all__ = [
    "DatasetFacts",
    "DatasetOptions",
    "DatasetSpec",
    "EvaluationSpec",
    "Facts",
    "FileSpec",
    "InputContract",
    "JobSpec",
    "Labels",
    "Name",
    "Problem",
    "ResourcesSpec",
    "StudentSpec",
    "TeacherFacts",
    "TeacherSpec",
    "TrainingSpec",
    "check",
    "problems_of",
    "resolve",
]

if TYPE_CHECKING:
    # what a method's type is, is known only at run time
    ObjectiveSpec: TypeAlias = BaseModel
    ProcedureSpec: TypeAlias = BaseModel
    SourceSpec: TypeAlias = BaseModel
    TransformSpec: TypeAlias = BaseModel
    TaskName: TypeAlias = str
    ExportFormat: TypeAlias = str
else:
    ObjectiveSpec, ProcedureSpec = method("objectives"), method("procedures")
    SourceSpec, TransformSpec = method("sources"), method("transforms")
    TaskName, ExportFormat = Literal[tuple(known("tasks"))], Literal[choices("export_formats")]


class AutoSource(Body):
    """Leaves the source to the service, as null does."""

    name: Literal["auto"] = Field(description="Which method this is.", examples=["auto"])


def _chosen_by_us(value: Any) -> Any:
    return None if value in (source_choice.NAME, {"name": source_choice.NAME}) else value


ShortText = Annotated[str, StringConstraints(max_length=1000)]
SourceChoice = Annotated[
    SourceSpec | None,
    BeforeValidator(_chosen_by_us, json_schema_input_type=SourceSpec | AutoSource | Literal["auto"] | None),
]


class StudentSpec(NetworkSpec):
    """The network that is trained. Its classes and its input are the teacher's, unless there is none."""

    initial_weights: InitialWeights | None = Field(
        None,
        description="What it begins with: `teacher` (slices of the teacher: of each layer the channels of largest norm), "
        "`neuron_merging` (the same, but hidden fully connected layers are merged pair by pair, arXiv:1507.06149), "
        "`random`, or the id of a file of weights. If null `teacher` where the source synthesises and the student is "
        "known to be a slice of the teacher, else `random`.",
        examples=["teacher"],
    )
    classes: Classes | None = Field(
        None,
        description="Classes; of other tasks the labels, the targets, or the length of the embedding. The teacher's, else "
        "the dataset's, if null.",
        examples=[10],
    )
    input: InputContract | None = Field(None, description="What it reads; the teacher's if null.")


class EvaluationSpec(Body):
    """What the student is measured on at the end; nothing is chosen by it."""

    dataset: DatasetId = Field(description="A dataset.", examples=["dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"])
    split: Literal["train", "test"] | None = Field(
        None, description="Which part of it; if null `test` where there is one, else `train`.", examples=["test"]
    )


class ResourcesSpec(Body):
    """What a job runs on: so many devices of one worker, GPUs where it has some, else processes on its processors."""

    gpus: int | None = Field(
        None,
        ge=1,
        le=64,
        description="How many devices one job uses at once; 1 if null. They share every batch, and make the student that "
        "one would make; sources that synthesise run on one. They are GPUs where the worker has some, else as "
        "many processes on its processors; ask for `gpu` or `gpu_memory_gb` if only a GPU will do.",
        examples=[1],
    )
    gpu: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}$")] | None = Field(
        None,
        description="A part of the name that the GPU must have, in any case, such as `h100`; any device if null.",
        examples=["h100"],
    )
    gpu_memory_gb: int | None = Field(
        None, ge=1, le=10_000, description="Least memory of each GPU, in GB of 10^9 bytes; any if null.", examples=[24]
    )


class JobSpec(Body):
    """A distillation.

    The smallest has a teacher and a student: without a dataset, a source synthesises images and knowledge distillation
    does the rest.
    """

    name: Name | None = Field(
        None, description="What you call it; made from the networks' names if null.", examples=["half-lenet"]
    )
    task: TaskName = Field(
        TASK,
        description="What the networks do: tell one class, or several labels, of an image, answer with real numbers "
        "(`regression`), or with a vector by which images of one identity are found (`embedding`).",
        examples=["classification"],
    )
    labels: Labels = Field(default_factory=dict)
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first among waiting jobs.", examples=[0])
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="What it runs on.")
    teacher: TeacherChoice | None = Field(
        None,
        description="A teacher; a job, whose student teaches; several of them, which answer as one; or a network that is "
        "trained first. Null trains without one.",
        examples=["tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
    )
    student: StudentSpec = Field(description="The network that is trained.", examples=[{"network": "lenet5_half"}])
    dataset: DatasetId | None = Field(
        None,
        description="Images to train on; null synthesises them.",
        examples=["dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
    )
    contract: Literal["check", "auto", "trust"] = Field(
        "check",
        description="What to do if the teacher is clearly better on the dataset's labels under another usual normalisation "
        "than the one in its `input`: `check` stops the job and lists the accuracies, `auto` takes the better one and says "
        "so, `trust` compares nothing.",
        examples=["check"],
    )
    source: SourceChoice = Field(
        None,
        description="Where batches come from; if null or `auto` it is chosen by what teacher and dataset offer, and "
        "`reasons` in the resolved spec says why.",
        examples=["dataset"],
    )
    objectives: list[ObjectiveSpec] | None = Field(
        None,
        min_length=1,
        max_length=MOST_OBJECTIVES,
        description="The losses; if null the source's own, or cross-entropy 0.1 and knowledge distillation 0.9 at "
        "temperature 4.",
        examples=[[{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4}]],
    )
    procedure: ProcedureSpec | None = Field(
        None, description="Which stages run; `direct` if null.", examples=["direct"]
    )
    transforms: list[TransformSpec] = Field(
        default_factory=list, max_length=8, description="How the student's weights live.", examples=[[]]
    )
    training: TrainingSpec = Field(
        default_factory=TrainingSpec, description="How it trains.", examples=[{"epochs": 30}]
    )
    evaluation: EvaluationSpec | None = Field(
        None, description="What it is measured on; the dataset itself if null, its `test` part if it has one."
    )
    exports: list[ExportFormat] = Field(
        list(choices("export_formats")),
        min_length=1,
        max_length=len(choices("export_formats")),
        description="In which forms the student ships.",
        examples=[list(choices("export_formats"))],
    )
    webhook: Webhook | None = Field(
        None,
        description="Where to tell of it: a URL, or a URL with a choice of events; nobody is told if null.",
        examples=["https://example.com/hooks/jobs"],
    )

    reasons: dict[ShortText, ShortText] = Field(
        default_factory=dict,
        max_length=64,
        description="Why the service chose what was left to it, by its place; the resolved spec has it, and you need not "
        "send it.",
        examples=[{}],
    )

    @model_validator(mode="after")
    def _each_export_once(self) -> Self:
        if len(set(self.exports)) != len(self.exports):
            raise complaint(Problem("/exports", "must name each form once"))
        return self


def resolve(spec: JobSpec, facts: Facts) -> dict[str, Any]:
    """The spec with every default written out, as JSON; resolving it again changes nothing."""
    return resolved(spec.model_dump(mode="json", by_alias=True, exclude_unset=True), facts)
