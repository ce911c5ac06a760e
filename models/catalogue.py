"""What there is: every objective, procedure, source, transform and network, from the generated `catalogue.json`.

From the parameters' JSON schemas come the pydantic types that a job's spec is made of: a model a method, told apart by
`name`. A method may also be written as its bare name.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    create_model,
)

from models.body import Body, FileId
from models.problems import Problem, complaint, tag

KINDS = ("objectives", "procedures", "sources", "transforms")
MOST_ITEMS = 1024
"""Longest list of a parameter that says no bound of its own."""
MOST_OBJECTIVES = 16
FILES = "#/files/"
"""What the reference of a parameter begins with that is the id of an uploaded file; its kind follows."""


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """The catalogue as `make catalogue` wrote it."""
    return dict(json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")))


def known(kind: str) -> Mapping[str, Any]:
    """The methods of a kind, or the networks, by name."""
    return dict(catalogue()[kind])


def needs_of(objective: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an objective needs with these parameters."""
    entry = known("objectives")[objective["name"]]
    for case in entry["needs_when"]:
        if objective.get(case["parameter"]) == case["value"]:
            return dict(case["needs"])
    return dict(entry["needs"])


def network_is_known(name: str) -> bool:
    """Whether a network is listed by name, or is of a family that is known by a pattern."""
    patterns = (entry["pattern"] for entry in catalogue()["network_patterns"])
    return name in known("networks") or any(re.fullmatch(pattern, name) for pattern in patterns)


class WeightSchedule(Body):
    """An objective's weight over a stage's progress, from 0 to 1.

    `linear` and `cosine` go from `start` to `end` until the moment `until` and stay there; `until` is `start` before
    that moment and `end` after it.
    """

    schedule: Literal["linear", "cosine", "until"] = Field(description="The curve.")
    start: float = Field(ge=0, description="The weight at the beginning.", examples=[1.0])
    end: float = Field(0.0, ge=0, description="The weight from `until` on.", examples=[0.0])
    until: float = Field(1.0, gt=0, le=1, description="The stage's progress at which `end` is reached.", examples=[0.5])


def _weight_tag(value: Any) -> str:
    return tag("schedule" if isinstance(value, dict | WeightSchedule) else "number")


Weight = Annotated[
    Annotated[float, Field(ge=0), Tag(tag("number"))] | Annotated[WeightSchedule, Tag(tag("schedule"))],
    Discriminator(_weight_tag),
]


def nested_objectives(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are lists of objectives."""
    return _of_reference(kind, name, "#/objectives")


def nested_networks(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are networks, or lists of them."""
    return _of_reference(kind, name, "#/network")


def nested_files(kind: str, name: str) -> dict[str, str]:
    """The parameters of a method that are ids of uploaded files, with the kinds of the files."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return {
        parameter: reference.removeprefix(FILES)
        for parameter, schema in properties.items()
        for reference in _references(schema)
        if reference and reference.startswith(FILES)
    }


@cache
def network_options(name: str) -> type[BaseModel]:
    """The model of a network's options; networks that are known by a pattern have none."""
    entry = known("networks").get(name) or {}
    return model("".join(part.capitalize() for part in f"{name}_options".split("_")), entry.get("parameters", {}), {})


def _of_reference(kind: str, name: str, reference: str) -> tuple[str, ...]:
    """The parameters of a method whose values, or whose lists' items, are what a reference means."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return tuple(parameter for parameter, schema in properties.items() if reference in _references(schema))


def _references(schema: Mapping[str, Any]) -> set[str | None]:
    places = (schema, *schema.get("anyOf", ()))
    return {found for place in places for found in (place.get("$ref"), (place.get("items") or {}).get("$ref"))}


def annotation(schema: Mapping[str, Any]) -> Any:
    """The Python type of a parameter's JSON schema."""
    if (schema.get("items") or {}).get("$ref") == "#/objectives":
        return Annotated[list[method("objectives")], Field(max_length=MOST_OBJECTIVES)]  # type: ignore[misc]
    if schema.get("$ref") in ("#/network", "#/network_space"):
        from models import networks  # it checks its options against this module

        return networks.NetworkSpec if schema["$ref"] == "#/network" else networks.NetworkSpaceSpec
    if schema.get("$ref", "").startswith(FILES):
        return FileId
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if "anyOf" in schema:
        return Union[tuple(None if option == {"type": "null"} else annotation(option) for option in schema["anyOf"])]  # noqa: UP007
    if schema["type"] == "array":
        return _array(schema)
    bounds = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
    given = {bounds[name]: bound for name, bound in schema.items() if name in bounds}
    types: dict[str, Any] = {"number": float, "integer": int, "boolean": bool}
    if schema["type"] == "string":
        return Annotated[str, StringConstraints(max_length=schema.get("maxLength", 255))]
    return Annotated[types[schema["type"]], Field(**given)] if given else types[schema["type"]]


def _array(schema: Mapping[str, Any]) -> Any:
    if "prefixItems" in schema:
        items = tuple(annotation(item) for item in schema["prefixItems"])
        return Annotated[tuple[items], Strict(False)]  # type: ignore[valid-type]
    length = Field(min_length=schema.get("minItems", 0), max_length=schema.get("maxItems", MOST_ITEMS))
    return Annotated[list[annotation(schema["items"])], length]  # type: ignore[misc]


def model(title: str, parameters: Mapping[str, Any], extra: Mapping[str, Any], about: str = "") -> type[BaseModel]:
    """A pydantic model from the JSON schema of an object, with further fields before its own."""
    fields: dict[str, Any] = dict(extra)
    for name, schema in parameters.get("properties", {}).items():
        # a parameter may be called as a method of pydantic's is
        attribute = f"{name}_" if hasattr(BaseModel, name) else name
        default = schema.get("default", ...)
        fields[attribute] = (annotation(schema), Field(default, alias=name, description=schema.get("description")))
    return create_model(title, __base__=Body, __doc__=about or title, **fields)


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
    extra: dict[str, Any] = {"name": (Literal[name], Field(description="Which method this is."))}
    if kind == "objectives":
        extra["weight"] = (Weight, Field(1.0, description="What its loss is multiplied by: a number or a schedule."))
    title = "".join(part.capitalize() for part in f"{name}_{kind[:-1]}".split("_"))
    about = "\n\n".join(part for part in (entry.get("description"), entry.get("paper")) if part)
    return model(title, entry["parameters"], extra, about)


def _label(kind: str, name: str) -> str:
    own = [*known(kind)[name]["parameters"].get("properties", {}), *(["weight"] if kind == "objectives" else [])]
    return f"{name}, which has {', '.join(own) or 'none'}"


def _named(kind: str) -> Callable[[Any], Any]:
    def named(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        given, at = ({"name": value}, "") if isinstance(value, str) else (value, "/name")
        if not isinstance(given, dict):
            raise complaint(
                Problem(
                    "",
                    f"must be a name, or an object with `name` and parameters; there are {', '.join(known(kind)) or 'none yet'}",
                )
            )
        problems = list(_misnamed(kind, given, at))
        if problems:
            raise complaint(*problems)
        return given

    return named


def _misnamed(kind: str, given: Mapping[str, Any], at: str) -> Iterator[Problem]:
    if "name" not in given:
        yield Problem(at, f"is required: say which {kind[:-1]}; there are {', '.join(known(kind)) or 'none yet'}")
        return
    entry = known(kind).get(given["name"]) if isinstance(given["name"], str) else None
    if entry is None:
        yield Problem(
            at, f"no {kind[:-1]} is called {given['name']!r}; there are {', '.join(known(kind)) or 'none yet'}"
        )
