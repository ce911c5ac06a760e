"""The bodies that announce an upload: a teacher, a dataset or another file."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from models.spec.body import Body, Labels, Name
from models.spec.network_spec import MOST_CLASSES, Classes, InputContract, NetworkSpec, Pixels
from models.spec.problems import Problem, complaint


class TeacherSpec(NetworkSpec):
    """A trained network whose weights will be uploaded."""

    network: str = Field(max_length=255, description="The network that the weights belong to.", examples=["lenet5"])
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

    @model_validator(mode="after")
    def _all_classes_named(self) -> Self:
        if self.class_names and len(self.class_names) != self.classes:
            message = f"must have one name a class: {self.classes}, not {len(self.class_names)}"
            raise complaint(Problem("/class_names", message))
        return self


class DatasetOptions(Body):
    """How a dataset is to be read; what is null stays as it is found."""

    height: Pixels | None = Field(None, description="Bring images to so many rows.", examples=[32])
    width: Pixels | None = Field(None, description="Bring images to so many columns.", examples=[32])
    channels: Literal[1, 3] | None = Field(None, description="Grey or RGB.", examples=[3])
    labels: Literal["class", "multi_label", "target"] = Field(
        "class",
        description="What is said of each image: its class or identity (N,), 0 or 1 of every label (N, K), or real numbers "
        "(N,) or (N, D). Class folders hold classes alone.",
        examples=["class"],
    )


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
    """Another input of a job that will be uploaded: weights to begin with, statistics of a teacher's activations,
    embeddings of its classes, or a program that students are built of."""

    kind: Literal["weights", "statistics", "embeddings", "program"] = Field(
        description="What it is.", examples=["weights"]
    )
    name: Name | None = Field(None, description="What you call it.", examples=["warm start"])
    labels: Labels = Field(default_factory=dict)
    options: dict[OptionName, OptionValue] = Field(
        default_factory=dict, max_length=64, description="What its kind needs to be read.", examples=[{}]
    )
