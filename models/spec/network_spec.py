"""Networks in a spec: their names, options and input contracts."""

import re
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from models.spec.body import Body
from models.spec.catalogue import known, limit, network_entry, network_is_known
from models.spec.layers import LAYERS, written_as_name
from models.spec.problems import Problem, complaint, meant, problems_of
from models.spec.schema_types import model, part_model

MOST_CLASSES = limit("classes")

Classes = Annotated[int, Field(ge=1, le=MOST_CLASSES)]


if TYPE_CHECKING:
    # its fields are known only at run time: the engine declares them
    DeclaredContract: TypeAlias = Body
else:
    DeclaredContract = part_model("input_contract")


class InputContract(DeclaredContract):
    """Input of a network: images of this size, each channel normalised as `(pixel / 255 - mean) / std`.

    Use the mean and std that the teacher was trained with. Wrong values are the most common reason for a student that
    learns nothing.
    """

    @model_validator(mode="after")
    def _one_per_channel(self) -> Self:
        given = dict(self)
        wrong = [
            Problem(
                f"/{name}", f"must have one number for each of {given['channels']} channels, not {len(given[name])}"
            )
            for name in ("mean", "std")
            if len(given[name]) != given["channels"]
        ]
        if wrong:
            raise complaint(*wrong)
        return self


@cache
def network_options(name: str) -> type[BaseModel]:
    """The model of a network's options; networks that are known by a pattern have those of the pattern."""
    entry = network_entry(name)
    title = "".join(part.capitalize() for part in re.split(r"[_/.]", f"{name}_options"))
    return model(title, entry.get("parameters", {}), {})


FIND = "auto"
"""The name that stands for the network of uploaded weights, which their inspection finds."""
_WRITTEN: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 255},
    {
        "type": "object",
        "properties": {LAYERS: {"type": "array", "items": {"type": "object"}, "minItems": 1}},
        "required": [LAYERS],
        "additionalProperties": False,
    },
]
NetworkName = Annotated[str, Field(max_length=255), WithJsonSchema({"anyOf": _WRITTEN}, mode="validation")]
"""The name of a network in a request; `{"layers": [...]}` describes one instead."""
NetworkToFind = Annotated[
    str,
    Field(max_length=255),
    BeforeValidator(lambda given: FIND if given is None else given),
    WithJsonSchema({"anyOf": [*_WRITTEN, {"type": "null"}]}, mode="validation"),
]
"""The same where it may be left open: null is `auto`."""


class NetworkSpec(Body):
    """A network by name, with its options, or described layer by layer."""

    network: NetworkName = Field(
        description='A network of the catalogue, or `{"layers": [...]}`, a network described layer by layer.',
        examples=["lenet5_half"],
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the network, as listed in the catalogue.", examples=[{}]
    )

    @model_validator(mode="before")
    @classmethod
    def _layers_as_option(cls, values: Any) -> Any:
        return written_as_name(values)

    @model_validator(mode="after")
    def _network_exists(self) -> Self:
        if self.network is None:
            return self  # a student that is like its teacher
        if self.network == FIND and type(self).model_fields["network"].default == FIND:
            if self.options:
                raise complaint(
                    Problem("/options", "must be empty where the network is to be found; name the `network`")
                )
            return self
        if not network_is_known(self.network):
            raise complaint(
                Problem(
                    "/network",
                    f"there is no network {self.network!r}{meant(self.network, known('networks')) or ';'} GET /v1/catalogue lists the"
                    " networks; those of libraries are written as torchvision/NAME and timm/NAME",
                )
            )
        try:
            network_options(self.network).model_validate(self.options)
        except ValidationError as error:
            found = [Problem(f"/options{problem.pointer}", problem.message) for problem in problems_of(error)]
            raise complaint(*found) from None
        return self


Values = Annotated[list[Any], Field(min_length=1, max_length=limit("values_of_an_option"))]


class NetworkSpaceSpec(Body):
    """A family of networks: a name, and lists of values for some of its options. It has a network for each
    combination."""

    network: str = Field(max_length=255, description="Name of a network in the catalogue.", examples=["mlp"])
    options: dict[str, Values] = Field(
        default_factory=dict, description="Values for each option.", examples=[{"hidden": [[64], [128], [64, 64]]}]
    )

    @model_validator(mode="after")
    def _networks_exist(self) -> Self:
        """Each value is checked with the defaults of the other options."""
        NetworkSpec(network=self.network)
        found = []
        for name, values in self.options.items():
            for index, value in enumerate(values):
                try:
                    network_options(self.network).model_validate({name: value})
                except ValidationError as error:
                    found += [_of_value(problem, name, index) for problem in problems_of(error)]
        if found:
            raise complaint(*found)
        return self


def _of_value(problem: Problem, name: str, index: int) -> Problem:
    """A problem of an option, with the pointer of the value in its list."""
    return Problem(f"/options/{name}/{index}{problem.pointer.removeprefix(f'/{name}')}", problem.message)
