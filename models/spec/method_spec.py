"""The type of a method in a spec: a union of models, discriminated by `name`. A bare name is accepted too."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from models.spec.body import Body
from models.spec.catalogue import NETWORK, NETWORK_SPACE, OBJECTIVES, known, part
from models.spec.network_spec import NetworkSpaceSpec, NetworkSpec
from models.spec.problems import Problem, complaint, meant, tag
from models.spec.schema_types import References, annotation, model, part_model

WEIGHT: Mapping[str, Any] = part("objective_weight")["parameters"]["properties"]["weight"]


if TYPE_CHECKING:
    # the types of methods are known only at run time: they come from the catalogue
    WeightSchedule: TypeAlias = Body
    Number: TypeAlias = float
else:
    WeightSchedule, Number = part_model("weight_schedule"), annotation(WEIGHT)


def _weight_tag(value: Any) -> str:
    return tag("schedule" if isinstance(value, dict | WeightSchedule) else "number")


Weight = Annotated[
    Annotated[Number, Tag(tag("number"))] | Annotated[WeightSchedule, Tag(tag("schedule"))],
    Discriminator(_weight_tag),
]


@cache
def method(kind: str) -> Any:
    """The type of one method of a kind in a spec: its name, or an object with `name` and parameters."""
    if not known(kind):
        return Annotated[dict[str, Any], BeforeValidator(_named(kind))]
    tags = {name: tag(_label(kind, name)) for name in known(kind)}
    members: Any = tuple(Annotated[_method_model(kind, name), Tag(tags[name])] for name in known(kind))
    found = Discriminator(lambda value: tags[value["name"] if isinstance(value, dict) else value.name])
    union: Any = Annotated[Union[members], found]  # noqa: UP007
    written: Any = Union[union, Literal[tuple(known(kind))]]  # noqa: UP007
    return Annotated[union, BeforeValidator(_named(kind), json_schema_input_type=written)]


def _method_model(kind: str, name: str) -> type[BaseModel]:
    entry = known(kind)[name]
    extra: dict[str, Any] = {"name": (Literal[name], Field(description="Name of the method."))}
    if kind == "objectives":
        extra["weight"] = (Weight, Field(WEIGHT["default"], description=WEIGHT["description"]))
    title = "".join(part.capitalize() for part in f"{name}_{kind[:-1]}".split("_"))
    about = "\n\n".join(part for part in (entry.get("description"), entry.get("paper")) if part)
    return model(title, entry["parameters"], extra, about, REFERENCES)


def _label(kind: str, name: str) -> str:
    own = [*known(kind)[name]["parameters"].get("properties", {}), *(["weight"] if kind == "objectives" else [])]
    return f"{name}; its parameters: {', '.join(own) or 'none'}"


def _named(kind: str) -> Callable[[Any], Any]:
    def named(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        given, at = ({"name": value}, "") if isinstance(value, str) else (value, "/name")
        if not isinstance(given, dict):
            raise complaint(
                Problem(
                    "",
                    f"must be a name, or an object with `name` and parameters; known are {', '.join(known(kind)) or 'none'}",
                )
            )
        problems = list(_misnamed(kind, given, at))
        if problems:
            raise complaint(*problems)
        return given

    return named


def _misnamed(kind: str, given: Mapping[str, Any], at: str) -> Iterator[Problem]:
    if "name" not in given:
        yield Problem(at, f"is required: the name of one of the {kind}; known are {', '.join(known(kind)) or 'none'}")
        return
    entry = known(kind).get(given["name"]) if isinstance(given["name"], str) else None
    if entry is None:
        near = meant(str(given["name"]), known(kind))
        yield Problem(
            at, f"there is no {kind[:-1]} {given['name']!r}{near or ';'} known are {', '.join(known(kind)) or 'none'}"
        )


REFERENCES: References = {
    OBJECTIVES: lambda: method("objectives"),
    NETWORK: lambda: NetworkSpec,
    NETWORK_SPACE: lambda: NetworkSpaceSpec,
}
