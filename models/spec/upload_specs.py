"""Request bodies that create an upload: a teacher, a dataset or another file."""

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from models.spec.body import Body, DatasetId, Labels, Name
from models.spec.catalogue import PROGRAM, choices
from models.spec.network_spec import FIND, MOST_CLASSES, Classes, InputContract, NetworkSpec, NetworkToFind
from models.spec.problems import Problem, complaint
from models.spec.schema_types import part_model


class TeacherSpec(NetworkSpec):
    """A trained network. Its weights are uploaded afterwards."""

    network: NetworkToFind = Field(
        FIND,
        description="The network that the weights belong to. `auto` or null finds it: by the names and shapes of the weights, "
        "and with a `dataset` also by its images.",
        examples=["lenet5"],
    )
    name: Name | None = Field(
        None, description="Your name for the teacher. If null: the name of the network.", examples=["digits"]
    )
    labels: Labels = Field(default_factory=dict)
    classes: Classes | None = Field(
        None,
        description="Number of classes, labels or outputs. If null: the number of outputs of the last layer.",
        examples=[10],
    )
    class_names: list[Name] = Field(
        default_factory=list,
        max_length=MOST_CLASSES,
        description="Class names in the order of the outputs; empty if unknown.",
        examples=[[]],
    )
    input: InputContract | None = Field(
        None,
        description="Input of the network. If null: found with the images of `dataset`, which is then required.",
        examples=[{"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]}],
    )
    dataset: DatasetId | None = Field(
        None,
        description="Id of a dataset with labels, by whose images the inspection finds what is not given, and measures the "
        "teacher. The inspection waits until the dataset is ready.",
        examples=[None],
    )
    weights: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        "auto",
        description="Which weights to read from the file: `raw`, `averaged` (a running average), a dotted path within the "
        "file, or `auto`: those that fit the network, averaged ones first.",
        examples=["auto"],
    )

    @model_validator(mode="after")
    def _input_given_or_found(self) -> Self:
        if self.dataset is not None and self.network == PROGRAM:
            raise complaint(Problem("/dataset", "must be omitted for a program: its input is given"))
        if self.input is None and self.dataset is None:
            words = "is required; or give a `dataset` with labels, by whose images it is found"
            raise complaint(Problem("/input", words))
        return self

    @model_validator(mode="after")
    def _all_classes_named(self) -> Self:
        if self.class_names and self.classes and len(self.class_names) != self.classes:
            message = f"must have one name for each of {self.classes} classes, not {len(self.class_names)}"
            raise complaint(Problem("/class_names", message))
        return self


if TYPE_CHECKING:
    # the fields and values are known only at run time: the engine declares them
    DatasetOptions: TypeAlias = Body
    FileKind: TypeAlias = str
else:
    DatasetOptions, FileKind = part_model("dataset_options"), Literal[choices("file_kinds")]


class DatasetSpec(Body):
    """Images, with labels or without. The file is uploaded afterwards: a zip or tar of class folders, or an npz file
    (docs/inputs.md).

    An npz file has `x_train` and `y_train`, optionally `x_test`, `y_test` and `class_names`; for the evaluation of
    embeddings also `camera_test`, a number for each image, and `query_test`, 1 for queries and 0 for the gallery.
    """

    name: Name | None = Field(None, description="Your name for the dataset.", examples=["digits"])
    labels: Labels = Field(default_factory=dict)
    options: DatasetOptions = Field(default_factory=DatasetOptions, description="How to read the file.", examples=[{}])
    source: str | None = Field(
        None,
        max_length=1024,
        description="Where the files are, if they are not sent: `s3://BUCKET/PREFIX` or `file:///FOLDER`, below a source that the"
        " operator allows. They are read once, by the inspection, which begins at once.",
    )


OptionName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
OptionValue = bool | int | float | Annotated[str, StringConstraints(max_length=255)] | None


class FileSpec(Body):
    """Another input of a job: initial weights, statistics of a teacher's activations, embeddings of its classes, or a program
    that a student is built from. The file is uploaded afterwards."""

    kind: FileKind = Field(description="Kind of file.", examples=["weights"])
    name: Name | None = Field(None, description="Your name for the file.", examples=["warm start"])
    labels: Labels = Field(default_factory=dict)
    options: dict[OptionName, OptionValue] = Field(
        default_factory=dict, max_length=64, description="Options for reading a file of this kind.", examples=[{}]
    )
