"""Request bodies that create jobs, and the public names of this folder.

The descriptions here are the API's schema. `resolve` writes out a job's defaults, `check` finds problems before any
network is built, `problems_of` turns pydantic's errors into pointers and sentences.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from models.spec import source_choice
from models.spec.body import Body, DatasetId, Labels, Name
from models.spec.catalogue import MOST_OBJECTIVES, choices, known, part
from models.spec.checks import check
from models.spec.compression import BudgetSpec
from models.spec.defaults import resolved
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.initial_weights import InitialWeights
from models.spec.method_spec import method
from models.spec.network_spec import Classes, InputContract, NetworkName, NetworkSpec
from models.spec.problems import Problem, complaint, problems_of
from models.spec.programs import PROGRAM_FIELD, ProgramFile, check_program
from models.spec.schema_types import annotation
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
    # the types of methods are known only at run time: they come from the catalogue
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
    """The service chooses the source. Null means the same."""

    name: Literal["auto"] = Field(description="Name of the method.", examples=["auto"])


def _none_if_auto(value: Any) -> Any:
    return None if value in (source_choice.NAME, {"name": source_choice.NAME}) else value


ShortText = Annotated[str, StringConstraints(max_length=1000)]
SourceChoice = Annotated[
    SourceSpec | None,
    BeforeValidator(_none_if_auto, json_schema_input_type=SourceSpec | AutoSource | Literal["auto"] | None),
]


LIKENESS = part("student")["parameters"]["properties"]


class StudentSpec(NetworkSpec):
    """The network to train: named, or `like` the teacher, or as large as a budget allows. By default it has the teacher's classes and
    input."""

    network: NetworkName | None = Field(  # type: ignore[assignment]  # the engine names a student that is like its teacher
        None, description=NetworkSpec.model_fields["network"].description, examples=["lenet5_half"]
    )
    like: annotation(LIKENESS["like"]) = Field(  # type: ignore[valid-type]
        None, description=LIKENESS["like"]["description"], examples=LIKENESS["like"]["examples"]
    )
    width: annotation(LIKENESS["width"]) | None = Field(  # type: ignore[valid-type]
        None,
        description=f"{LIKENESS['width']['description']} If null: {LIKENESS['width']['default']}; with a budget: 1.",
        examples=LIKENESS["width"]["examples"],
    )
    budget: BudgetSpec | None = Field(
        None,
        description="Largest file and longest time of the student, which becomes as large as they allow. With a budget alone the student is "
        "`like` its teacher, with `width` at most 1. If null: the student is as it is described.",
        examples=[{"bytes": 200_000, "milliseconds": 2}],
    )
    program: ProgramFile | None = PROGRAM_FIELD
    initial_weights: InitialWeights | None = Field(
        None,
        description="Initial weights: `teacher` (slices of the teacher: of each layer the channels of largest norm), "
        "`neuron_merging` (the same, but hidden fully connected layers are merged pair by pair, arXiv:1507.06149), "
        "`random`, `pretrained` (those of torchvision or timm, if the operator of the service has put the file into its folder), "
        "or the id of a file of weights. If null: `teacher` if the student is `like` its teacher or the catalogue "
        "lists it as a slice of the teacher, and the source synthesises images, or the procedure is `direct` and the "
        "teacher is larger; else `random`.",
        examples=["teacher"],
    )
    classes: Classes | None = Field(
        None,
        description="Number of classes; for other tasks the number of labels or targets, or the length of the embedding. "
        "If null: the dataset's if the student learns its labels or has no teacher, else the teacher's.",
        examples=[10],
    )
    input: InputContract | None = Field(None, description="Input of the student. If null: the teacher's.")

    @model_validator(mode="after")
    def _program_is_named(self) -> Self:
        check_program(self.network, self.program)
        return self

    @model_validator(mode="after")
    def _named_or_like_the_teacher(self) -> Self:
        nameless = self.network is None and self.like is None
        if (nameless and self.budget is None) or (self.network is not None and self.like is not None):
            words = "is required, or `like` the teacher, or a `budget`" if nameless else "cannot be set if `like` is"
            raise complaint(Problem("/network", words))
        if self.network is None and self.options:
            raise complaint(Problem("/options", "must be empty for a student that is like its teacher"))
        if self.network is not None and self.width is not None:
            raise complaint(Problem("/width", "is for students that are `like` the teacher; use the network's options"))
        return self


class EvaluationSpec(Body):
    """The evaluation of the finished student. It never influences the training or the choice of weights."""

    dataset: DatasetId = Field(
        description="Id of the evaluation dataset.", examples=["dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"]
    )
    split: Literal["train", "test"] | None = Field(
        None,
        description="Split to evaluate on. If null: `test` if the dataset has it, else `train`.",
        examples=["test"],
    )


class ResourcesSpec(Body):
    """The devices that a job needs, all of one worker: GPUs if the worker has some, else CPU processes."""

    gpus: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Number of devices. If null: 1. Each batch is divided among them, and the student is the same as on one "
        "device, up to rounding; sources that synthesise images run on one. The devices are GPUs if the worker has some, "
        "else CPU processes; set `gpu` or `gpu_memory_gb` to require GPUs.",
        examples=[1],
    )
    gpu: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,31}$")] | None = Field(
        None,
        description="Part of the name of the required GPU, such as `h100`; case does not matter. If null: any device.",
        examples=["h100"],
    )
    gpu_memory_gb: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Minimum memory of each GPU, in GB (10^9 bytes). If null: any.",
        examples=[24],
    )


class JobSpec(Body):
    """A distillation job.

    The smallest job has a teacher and a student. Without a dataset, a source synthesises the training images.
    """

    name: Name | None = Field(
        None, description="Your name for the job. If null: made from the networks' names.", examples=["half-lenet"]
    )
    task: TaskName = Field(
        TASK,
        description="Task of the networks: one class per image (`classification`), several labels per image "
        "(`multi_label`), real-valued outputs (`regression`), a vector for retrieval of images of the same identity "
        "(`embedding`), one class per pixel (`segmentation`), a depth per pixel (`depth`), or boxes around objects (`detection`).",
        examples=["classification"],
    )
    labels: Labels = Field(default_factory=dict)
    priority: int = Field(
        0,
        ge=-100,
        le=100,
        description="Waiting jobs with the highest priority start first, before the fair share of keys.",
        examples=[0],
    )
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec, description="Required devices.")
    teacher: TeacherChoice | None = Field(
        None,
        description="Id of a teacher; id of a job, whose student becomes the teacher; an ensemble of several of them; or a "
        "network to train first. If null: the student trains without a teacher.",
        examples=["tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
    )
    student: StudentSpec = Field(description="The network to train.", examples=[{"network": "lenet5_half"}])
    dataset: DatasetId | None = Field(
        None,
        description="Id of the training dataset. If null: the source synthesises images.",
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
        description="Source of the training batches. If null or `auto`: chosen from the properties of teacher and dataset, "
        "with the reason in `reasons` of the resolved spec.",
        examples=["dataset"],
    )
    objectives: list[ObjectiveSpec] | None = Field(
        None,
        min_length=1,
        max_length=MOST_OBJECTIVES,
        description="Losses. If null: those of the procedure or source if it has some, else those of the task; for "
        "classification with labels and a teacher, `cross_entropy` of weight 0.1 and `kd` of weight 0.9 at temperature 4.",
        examples=[[{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4}]],
    )
    procedure: ProcedureSpec | None = Field(
        None, description="Procedure: the stages to run. If null: `direct`.", examples=["direct"]
    )
    transforms: list[TransformSpec] = Field(
        default_factory=list,
        max_length=8,
        description="Transforms of the student's weights: quantisation, pruning, factorisation.",
        examples=[[]],
    )
    training: TrainingSpec = Field(
        default_factory=TrainingSpec,
        description="Length, optimiser and learning rate of the training.",
        examples=[{"epochs": 30}],
    )
    evaluation: EvaluationSpec | None = Field(
        None,
        description="Evaluation of the finished student. If null: on the training dataset, its `test` split if it has one.",
    )
    exports: list[ExportFormat] = Field(
        list(choices("default_export_formats")),
        min_length=1,
        max_length=len(choices("export_formats")),
        description="File formats of the student. Those in half precision (`fp16`) are compared with the student.",
        examples=[list(choices("export_formats"))],
    )
    webhook: Webhook | None = Field(
        None,
        description="Webhook for changes of the job's status: a URL, or an object with a URL and events. If null: none.",
        examples=["https://example.com/hooks/jobs"],
    )

    reasons: dict[ShortText, ShortText] = Field(
        default_factory=dict,
        max_length=64,
        description="Reasons for the values that the service chose, by JSON pointer. Filled in the resolved spec; you need "
        "not send it.",
        examples=[{}],
    )

    @model_validator(mode="after")
    def _each_export_once(self) -> Self:
        if len(set(self.exports)) != len(self.exports):
            raise complaint(Problem("/exports", "must name each format once"))
        return self


def resolve(spec: JobSpec, facts: Facts) -> dict[str, Any]:
    """The spec with every default written out, as JSON. Resolving the result again changes nothing."""
    return resolved(spec.model_dump(mode="json", by_alias=True, exclude_unset=True), facts)
