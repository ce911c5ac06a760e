"""The bodies that announce an upload: a teacher, a dataset or another file."""

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from models.spec.body import Body, Labels, Name
from models.spec.catalogue import choices
from models.spec.network_spec import MOST_CLASSES, Classes, InputContract, NetworkName, NetworkSpec
from models.spec.problems import Problem, complaint
from models.spec.schema_types import part_model


class TeacherSpec(NetworkSpec):
    """A trained network whose weights will be uploaded."""

    network: NetworkName = Field(description="The network that the weights belong to.", examples=["lenet5"])
    name: Name | None = Field(None, description="What you call it; the network's name if null.", examples=["digits"])
    labels: Labels = Field(default_factory=dict)
    classes: Classes = Field(
        description="Classes that it tells apart; of another network, how many numbers it answers with.", examples=[10]
    )
    class_names: list[Name] = Field(
        default_factory=list,
        max_length=MOST_CLASSES,
        description="Their names, in order; empty if unknown.",
        examples=[[]],
    )
    input: InputContract = Field(description="What it reads.")
    weights: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        "auto",
        description="Which weights of the file are read: `raw`, `averaged` (a running average), a dotted path within it, or "
        "`auto`: those that fit, averaged ones first.",
        examples=["auto"],
    )

    @model_validator(mode="after")
    def _all_classes_named(self) -> Self:
        if self.class_names and len(self.class_names) != self.classes:
            message = f"must have one name a class: {self.classes}, not {len(self.class_names)}"
            raise complaint(Problem("/class_names", message))
        return self


if TYPE_CHECKING:
    # their fields and words are known only at run time: the engine declares them
    DatasetOptions: TypeAlias = Body
    FileKind: TypeAlias = str
else:
    DatasetOptions, FileKind = part_model("dataset_options"), Literal[choices("file_kinds")]


class DatasetSpec(Body):
    """Images with labels that will be uploaded: an npz file, or a zip of a folder a class.

    An npz file holds `x_train` and `y_train`, perhaps `x_test` and `y_test`, and `class_names`; for the evaluation of
    embeddings also `camera_test`, a number for each image, and `query_test`, 1 for queries and 0 for the gallery.
    """

    name: Name | None = Field(None, description="What you call it.", examples=["digits"])
    labels: Labels = Field(default_factory=dict)
    options: DatasetOptions = Field(default_factory=DatasetOptions, description="How it is to be read.", examples=[{}])


OptionName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
OptionValue = bool | int | float | Annotated[str, StringConstraints(max_length=255)] | None


class FileSpec(Body):
    """Another input of a job that will be uploaded: weights to begin with, statistics of a teacher's activations, or
    embeddings of its classes."""

    kind: FileKind = Field(description="What it is.", examples=["weights"])
    name: Name | None = Field(None, description="What you call it.", examples=["warm start"])
    labels: Labels = Field(default_factory=dict)
    options: dict[OptionName, OptionValue] = Field(
        default_factory=dict, max_length=64, description="What its kind needs to be read.", examples=[{}]
    )
