"""What there is: every objective, procedure, source, transform and network, from the generated `catalogue.json`."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

KINDS = ("objectives", "procedures", "sources", "transforms")
MOST_ITEMS = 1024
"""Longest list of a parameter that says no bound of its own."""
MOST_OBJECTIVES = 16
OBJECTIVES, NETWORK, NETWORK_SPACE, LAYER = "#/objectives", "#/network", "#/network_space", "#/layer"
"""References of parameters that are lists of objectives, networks, families of networks, or layers of a network."""
FILES = "#/files/"
"""What the reference of a parameter begins with that is the id of an uploaded file; its kind follows."""


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """The catalogue as `make catalogue` wrote it."""
    return dict(json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")))


def known(kind: str) -> Mapping[str, Any]:
    """The methods of a kind, or the networks, by name."""
    return dict(catalogue()[kind])


def part(name: str) -> Mapping[str, Any]:
    """A part of a spec that is no method, such as `training`: its description, and its parameters as JSON schema."""
    return dict(known("parts")[name])


def choices(name: str) -> tuple[str, ...]:
    """The words that a spec may use for what has no schema of its own, such as `export_formats`."""
    return tuple(known("choices")[name])


def limit(name: str) -> int:
    """A number that the engine and the API share, such as the most `classes`."""
    return int(known("limits")[name])


def effective(kind: str, method: Mapping[str, Any], attribute: str) -> Any:
    """What the catalogue says of a method with the parameters that it has, such as its `needs`."""
    _, value = _case(kind, method, attribute)
    return value


def decided_by(kind: str, method: Mapping[str, Any], attribute: str) -> str | None:
    """The parameter of a method whose value makes an attribute other than it usually is, if one does."""
    parameter, _ = _case(kind, method, attribute)
    return parameter


def _case(kind: str, method: Mapping[str, Any], attribute: str) -> tuple[str | None, Any]:
    """As the engine's `Method`: of several values that the parameters have, the first counts."""
    entry = known(kind)[method["name"]]
    for case in entry["when"]:
        if attribute in case["then"] and method.get(case["parameter"]) == case["value"]:
            return case["parameter"], case["then"][attribute]
    return None, entry[attribute]


def values_with(kind: str, name: str, attribute: str) -> Iterator[tuple[str, Any, Any]]:
    """The parameters' values that make an attribute of a method another, each with the parameter before and the attribute
    after it."""
    for case in known(kind)[name]["when"]:
        if attribute in case["then"]:
            yield case["parameter"], case["value"], case["then"][attribute]


def needs_of(objective: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an objective needs with the parameters that it has."""
    return dict(effective("objectives", objective, "needs"))


def network_is_known(name: str) -> bool:
    """Whether a network is listed by name, or is of a family that is known by a pattern."""
    patterns = (entry["pattern"] for entry in catalogue()["network_patterns"])
    return name in known("networks") or any(re.fullmatch(pattern, name) for pattern in patterns)


def nested_objectives(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are lists of objectives."""
    return _of_reference(kind, name, OBJECTIVES)


def nested_networks(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are networks, or lists of them."""
    return _of_reference(kind, name, NETWORK)


def nested_files(kind: str, name: str) -> dict[str, str]:
    """The parameters of a method that are ids of uploaded files, with the kinds of the files."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return {
        parameter: reference.removeprefix(FILES)
        for parameter, schema in properties.items()
        for reference in _references(schema)
        if reference and reference.startswith(FILES)
    }


def _of_reference(kind: str, name: str, reference: str) -> tuple[str, ...]:
    """The parameters of a method whose values, or whose lists' items, are what a reference means."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return tuple(parameter for parameter, schema in properties.items() if reference in _references(schema))


def _references(schema: Mapping[str, Any]) -> set[str | None]:
    places = (schema, *schema.get("anyOf", ()))
    return {found for place in places for found in (place.get("$ref"), (place.get("items") or {}).get("$ref"))}
